# What waits under keys for a peer that does not keep up: the newest value of each, and how all of it goes out.

@cython.final
cdef class LatestValue:
    """A message that waits. All connections that a broadcast has left it to share it."""
    cdef:
        bytes frame             # as a server without compression sends it; the others take the payload out of it
        Py_ssize_t payload_size
        object compress

    def __cinit__(self, bytes frame not None, Py_ssize_t payload_size, compress):
        self.frame = frame
        self.payload_size = payload_size
        self.compress = compress


@cython.final
cdef class LatestSlot:
    """The place of a key in the order."""
    cdef LatestValue value


@cython.final
cdef class LatestValues:
    """What waits for one peer. It is there only while something does."""
    cdef:
        dict slots              # by the key, in the order in which the keys came first
        Py_ssize_t size         # bytes of their frames
        object timer
        double delay            # until the timer's next look, in seconds
        bint releasing          # what waited is going out, and what comes now waits for its end

    def __cinit__(self):
        self.slots = {}


cdef int release_latest(Connection connection) except -1:
    """Send all that waits, at once if it fits the gather buffer."""
    cdef:
        LatestValues latest = connection.latest
        LatestSlot slot
        dict slots = latest.slots
        bint nested = latest.releasing
    # A handler of the log may send: that waits behind.
    latest.slots = {}
    latest.size = 0
    latest.releasing = True
    connection.corks += 1
    try:
        for slot in slots.values():
            if not can_send(connection):
                break
            write_latest(connection, slot.value)
    finally:
        latest.releasing = nested
        uncork(connection)
    if connection.latest is latest and not nested and not latest.slots:
        drop_latest(connection)
    return 0


cdef int write_latest(Connection connection, LatestValue value) except -1:
    # Without a look at the limit for what may wait: there it was counted already.
    cdef:
        uint8_t first = <uint8_t>PyBytes_AS_STRING(value.frame)[0]
        Py_ssize_t size = value.payload_size
        char* payload = PyBytes_AS_STRING(value.frame) + PyBytes_GET_SIZE(value.frame) - size
    if connection.deflater is not None:
        if is_deflated(connection, first, size, value.compress):
            view = PyMemoryView_FromMemory(payload, size, PyBUF_READ) if size else b""
            return write_deflated(connection, first, connection.deflater.compress(view, True))
        connection.deflating = False
    if connection.is_client:
        return write_frame(connection, first, <const uint8_t*>payload, size)
    return write_whole_frame(connection, value.frame, size)


cdef int release_before_end(Connection connection) except -1:
    """Nothing can be sent soon: what waits goes out before that, unless it would get into a message that has not ended."""
    if connection.latest is None:
        return 0
    return drop_latest(connection) if connection.fragmented else release_latest(connection)
