# Messages that are sent compressed (RFC 7692): which, and by what.

cdef inline bint is_deflated(Connection connection, WSMsgType msg_type, Py_ssize_t size, bint fin, compress) except -1:
    """Whether a data frame of a connection with compression is to be compressed."""
    if msg_type == WSMsgType.CONTINUATION:
        return connection.deflating
    if compress is None:
        return not fin or size >= <Py_ssize_t>connection.options.compression.min_size
    if not isinstance(compress, bool):
        raise TypeError(f"compress must be a bool or None, got {compress!r}")
    return compress


cdef bint send_deflated(Connection connection, WSMsgType msg_type, message, bint fin, bint rsv1, bint rsv2, bint rsv3,
                        compress) except -1:
    """Send a data frame on a connection with compression; whether it was taken."""
    cdef Py_buffer view
    check_rsv1(rsv1)
    if not can_send(connection):
        return False
    get_message(message, &view)
    try:
        if not is_deflated(connection, msg_type, view.len, fin, compress):
            connection.deflating = False
            return send_frame(connection, msg_type, <const uint8_t*>view.buf, view.len, fin, False, rsv2, rsv3)
        # What is compressed has to be sent: the peer's next message may refer to it.
        if not may_queue(connection, msg_type, view.len):
            return False
        payload = connection.deflater.compress(borrowed(&view), bool(fin))
    finally:
        PyBuffer_Release(&view)
    connection.deflating = not fin
    write_frame(connection, msg_type, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), fin,
                msg_type != WSMsgType.CONTINUATION, rsv2, rsv3)
    return True


cdef inline object borrowed(Py_buffer* view):
    """The message as something that zlib reads, and nobody keeps."""
    if view.len == 0:
        return b""
    return PyMemoryView_FromMemory(<char*>view.buf, view.len, PyBUF_READ)


cdef inline int check_rsv1(bint rsv1) except -1:
    if rsv1:
        raise ValueError("rsv1 is True, but on this connection it marks what picows has compressed (RFC 7692)")
    return 0


cdef int check_not_deflated(Connection connection, WSMsgType msg_type, bint rsv1) except -1:
    """A frame built in the caller's memory goes out as it is."""
    check_rsv1(rsv1)
    if msg_type != WSMsgType.CONTINUATION:
        connection.deflating = False
    elif connection.deflating:
        raise ValueError("this message was begun compressed: continue it by send()")
    return 0
