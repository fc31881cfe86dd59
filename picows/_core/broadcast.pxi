# The same frame to many connections.

def ws_broadcast(transports, msg_type, message, bint fin=True, compress=None, *, latest=None):
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
    :param latest: a key, if a newer message of the same key makes this one worthless: each transport gets it as by
        :meth:`WSTransport.send_latest`, TEXT or BINARY and whole. What waits for peers that do not keep up is shared by
        them. None: like :meth:`WSTransport.send`
    :returns: how many transports took it
    :raises TypeError: for a message of another type, something else among `transports`, or a key that cannot be hashed;
        nothing is sent
    :raises ValueError: as for :meth:`WSTransport.send`, and for fragments and PINGs with a key; nothing is sent
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
        LatestValue value = None            # what the peers that do not keep up wait for
        Py_ssize_t taken = 0
    check_data_or_ping(<WSMsgType>opcode)
    if latest is not None:
        first_of_whole(msg_type)
        if not fin:
            raise ValueError("fin is False, but only whole messages are sent with latest")
        check_key("latest", latest)
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
                if latest is not None and not keeps_up(connection):
                    if value is None:
                        if frame is None:
                            frame = unmasked_frame(first, <const uint8_t*>view.buf, view.len)
                        value = LatestValue(frame, view.len, compress)
                    taken += let_wait(connection, latest, value)
                elif connection.deflater is not None and not opcode & 8:
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
