# Messages that are sent compressed (RFC 7692): which, and by what.

cdef object agreed_compression(WSTransport transport, Connection connection):
    """What was agreed on, as settings that say all of it; None: no compression.

    Read once more out of the handshake, so that no connection has to keep it.
    """
    settings = connection.options.compression
    if connection.deflater is None:
        return None
    if connection.is_client:
        return deflate.check_answer(settings, transport.response.headers.getall("Sec-WebSocket-Extensions")).as_settings()
    _, agreement = deflate.accept(settings, transport.request.headers.getall("Sec-WebSocket-Extensions"))
    return agreement.as_settings()


cdef inline int is_deflated(Connection connection, uint8_t first, Py_ssize_t size, compress) except -1:
    """Whether a data frame of a connection with compression is to be compressed."""
    if first & 0x0F == WSMsgType.CONTINUATION:
        return connection.deflating
    if compress is None:
        return not first & FIN_BIT or size >= <Py_ssize_t>connection.options.compression.min_size
    check_compress(compress)
    return compress


cdef inline int check_compress(compress) except -1:
    if compress is not None and not isinstance(compress, bool):
        raise TypeError(f"compress must be a bool or None, got {compress!r}")
    return 0


cdef int send_deflated(Connection connection, uint8_t first, message, compress) except -1:
    """Send a data frame on a connection with compression; whether it was taken."""
    cdef:
        Py_buffer view
        bint fin = first & FIN_BIT != 0
    check_rsv1(first)
    if not can_send(connection):
        return False
    get_message(message, &view)
    try:
        # As in send_message(): that may have run code.
        if not can_send(connection):
            return False
        if not is_deflated(connection, first, view.len, compress):
            connection.deflating = False
            return send_frame(connection, first, <const uint8_t*>view.buf, view.len)
        # What is compressed has to be sent: the peer's next message may refer to it.
        if not may_queue(connection, first, view.len):
            return False
        payload = connection.deflater.compress(borrowed(&view), bool(fin))
    finally:
        PyBuffer_Release(&view)
    write_deflated(connection, first, payload)
    return True


cdef int write_deflated(Connection connection, uint8_t first, bytes payload) except -1:
    connection.deflating = not first & FIN_BIT
    if first & 0x0F != WSMsgType.CONTINUATION:
        first |= RSV1_BIT
    return write_frame(connection, first, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))


cdef inline object borrowed(Py_buffer* view):
    """The message as something that zlib reads, and nobody keeps."""
    if view.len == 0:
        return b""
    return PyMemoryView_FromMemory(<char*>view.buf, view.len, PyBUF_READ)
