# The same frame to many connections.

def ws_broadcast(transports, msg_type, message, bint fin=True, compress=None):
    """Send one frame to many connections.

    For server-side transports the frame is built once and handed to each by one write; what the peers do not take at
    once waits as that same block of memory, not as a copy for each. (On the client side every frame has a mask of its
    own, RFC 6455 5.3, so it is built for each.) Order is that of :meth:`WSTransport.send`, gathering included.

    :param transports: any iterable of `WSTransport` of the calling thread; those that cannot send any more are skipped
    :param msg_type: as for :meth:`WSTransport.send`
    :param message: as for :meth:`WSTransport.send`
    :param fin: whether this is the last frame of its message
    :param compress: as for :meth:`WSTransport.send`. A whole message is compressed once for all connections that
        agreed on the same settings.
    :returns: how many transports took it
    :raises TypeError: for a message of another type, or something else among `transports`; nothing is sent
    :raises ValueError: as for :meth:`WSTransport.send`; nothing is sent
    :raises RuntimeError: when one of the transports belongs to another thread; nothing is sent
    """
    if not isinstance(transports, Iterable):
        raise TypeError(f"transports is of type {type(transports).__name__}, expected an iterable of WSTransport")
    cdef:
        list targets = list(transports)     # a send may run a callback, which may change the collection
        int opcode = checked_msg_type(msg_type)
        Py_buffer view
        Connection connection
        uint8_t first = first_byte(opcode, fin, False, False, False)
        bytes frame = None
        dict deflated = {}                  # by the settings: the payload, and the frame of a server
        Py_ssize_t taken = 0
    check_data_or_ping(<WSMsgType>opcode)
    check_compress(compress)
    for target in targets:
        if not isinstance(target, WSTransport):
            raise TypeError(f"transports holds a {type(target).__name__}, expected WSTransport only")
        checked_connection(target, "send")
    get_message(message, &view)
    try:
        check_control(first, view.len)
        for target in targets:
            connection = <Connection>(<WSTransport>target)._connection
            if not can_send(connection):
                continue
            try:
                if connection.deflater is not None and not opcode & 8:
                    taken += broadcast_deflated(connection, first, message, &view, compress, deflated)
                elif connection.is_client:
                    taken += send_frame(connection, first, <const uint8_t*>view.buf, view.len)
                elif may_queue(connection, first, view.len):
                    if frame is None:
                        frame = unmasked_frame(first, <const uint8_t*>view.buf, view.len)
                    write_whole_frame(connection, frame, view.len)
                    taken += 1
            except WSSlowPeerError:
                pass    # one slow peer does not keep the message from the others
            tell_flow(connection)
    finally:
        PyBuffer_Release(&view)
    return taken


cdef int broadcast_deflated(Connection connection, uint8_t first, message, Py_buffer* view, compress,
                            dict deflated) except -1:
    cdef bytes payload, frame
    if (not first & FIN_BIT or first & 0x0F == WSMsgType.CONTINUATION
            or not is_deflated(connection, first, view.len, compress)):
        # Fragments belong to the stream of their connection.
        return send_deflated(connection, first, message, compress)
    if not may_queue(connection, first, view.len):
        return False
    deflater = connection.deflater
    if deflater.key not in deflated:
        payload = deflate.compress_fresh(deflater.key, borrowed(view))
        deflated[deflater.key] = payload, unmasked_frame(
            first | RSV1_BIT, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
    payload, frame = deflated[deflater.key]
    # The next message must not refer past this one, which our side of the stream does not know.
    deflater.forget()
    if connection.is_client:
        write_frame(connection, first | RSV1_BIT, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
    else:
        write_whole_frame(connection, frame, PyBytes_GET_SIZE(payload))
    return True


cdef bytes unmasked_frame(uint8_t first, const uint8_t* payload, Py_ssize_t size):
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>header_size(size, False) + size)
    build_frame(<uint8_t*>PyBytes_AS_STRING(frame), first, payload, size, False, 0)
    return frame


cdef int write_whole_frame(Connection connection, bytes frame, Py_ssize_t payload_size) except -1:
    cdef:
        Py_ssize_t size = PyBytes_GET_SIZE(frame)
        Py_ssize_t sent
        uint8_t* out
        uint8_t first = <uint8_t>PyBytes_AS_STRING(frame)[0]
    out = room_to_gather(connection, size) if connection.corks else NULL
    if out != NULL:
        memcpy(out, PyBytes_AS_STRING(frame), size)
    else:
        sent = ws_send(connection.fd, PyBytes_AS_STRING(frame), size) if goes_direct(connection) else 0
        if sent < size:
            write_to_transport(connection, frame[sent:] if sent else frame)
    if connection.debug:
        log_sent_frame(connection, first, payload_size)
    return 0
