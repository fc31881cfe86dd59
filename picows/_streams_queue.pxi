# The queue: what was received and not taken yet, and when the socket is read.

cdef inline Py_ssize_t memory_of(object message) noexcept:
    if PyBytes_CheckExact(message):
        return PyBytes_GET_SIZE(message)
    return PyUnicode_GET_LENGTH(message) * PyUnicode_KIND(message)


cdef inline int put(MessageStream stream, object message) except -1:
    if not PyUnicode_CheckExact(message) and not PyBytes_CheckExact(message):
        raise TypeError(f"message_of returned a {type(message).__name__}, expected str, bytes or None")
    if stream.count == stream.capacity:
        grow_ring(stream)
    Py_INCREF(message)
    stream.ring[(stream.first + stream.count) & (stream.capacity - 1)] = <PyObject*>message
    stream.count += 1
    stream.size += memory_of(message)
    if (stream.count > stream.high or stream.size > stream.high_bytes) and not stream.reading_paused:
        pause_reading(stream)
    if stream.receiver is not None and not stream.receiver_woken:
        wake_receiver(stream)
    return 0


cdef int grow_ring(MessageStream stream) except -1:
    cdef:
        Py_ssize_t capacity = stream.capacity * 4
        Py_ssize_t i
        PyObject** ring
    if capacity > PY_SSIZE_T_MAX // <Py_ssize_t>sizeof(PyObject*):
        raise MemoryError()
    ring = <PyObject**>PyMem_Malloc(capacity * sizeof(PyObject*))
    if ring == NULL:
        raise MemoryError()
    for i in range(stream.count):
        ring[i] = stream.ring[(stream.first + i) & (stream.capacity - 1)]
    if stream.ring != stream.few:
        PyMem_Free(stream.ring)
    stream.ring = ring
    stream.capacity = capacity
    stream.first = 0
    return 0


cdef inline void forget_ring(MessageStream stream) noexcept:
    """It is empty: the next messages begin in the object itself."""
    if stream.ring != stream.few:
        PyMem_Free(stream.ring)
        stream.ring = stream.few
        stream.capacity = FEW_MESSAGES
    stream.first = 0


cdef int pause_reading(MessageStream stream) except -1:
    if stream._transport.is_close_frame_sent:
        # Nobody may be left to take messages, and the peer's CLOSE lies behind them.
        stream.dropping = True
        return 0
    try:
        stream._transport.underlying_transport.pause_reading()
    except (AttributeError, RuntimeError):
        return 0    # it is closing, so no more will come
    stream.reading_paused = True
    return 0


cdef int resume_reading(MessageStream stream) except -1:
    if stream.reading_paused:
        stream.reading_paused = False
        try:
            stream._transport.underlying_transport.resume_reading()
        except (AttributeError, RuntimeError):
            pass    # it is closing, and reads to its end by itself
    return 0
