# send_latest: at once to a peer that keeps up; for another one the newest value of each key waits until it has caught up.

# How long it takes from when something waits to the first look whether the peer has caught up, and between two looks at most, in
# seconds: each takes twice as long as the one before. A transport does not tell when its buffer is empty, only when it falls to the
# low mark from above the high one; and the event loops' own TLS does not know what TCP holds. Every send looks as well.
cdef double FIRST_LOOK = 0.005
cdef double LONGEST_LOOK = 0.08


cdef inline uint8_t first_of_whole(object msg_type) except 0:
    cdef int opcode = checked_msg_type(msg_type)
    if opcode != WSMsgType.TEXT and opcode != WSMsgType.BINARY:
        raise ValueError(f"msg_type is {msg_type!r}, expected TEXT or BINARY: only whole messages are sent under a key")
    return FIN_BIT | <uint8_t>opcode


cdef inline int check_key(str name, object key) except -1:
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(f"{name} must be hashable, got a {type(key).__name__}: {error}") from None
    return 0


cdef int send_latest(Connection connection, key, uint8_t first, message, compress) except -1:
    """Send a whole message, or let it wait under its key; whether it was taken."""
    cdef Py_buffer view
    if not can_send(connection):
        return False
    if keeps_up(connection):
        if connection.deflater is not None:
            return send_deflated(connection, first, message, compress)
        return send_message(connection, first, message)
    get_message(message, &view)
    try:
        value = LatestValue(unmasked_frame(first, <const uint8_t*>view.buf, view.len), view.len, compress)
    finally:
        PyBuffer_Release(&view)
    return let_wait(connection, key, value)


cdef inline bint keeps_up(Connection connection) except -1:
    """Whether a message that is sent now waits for nothing. What waited has been sent then."""
    if connection.latest is None and not connection.transport_queued and not is_fragmenting(connection):
        return True
    return has_caught_up(connection)


cdef bint has_caught_up(Connection connection) except -1:
    if is_fragmenting(connection) or is_behind(connection):
        return False
    if connection.latest is None:
        return True
    if connection.latest.releasing:
        return False
    release_latest(connection)
    return connection.latest is None and not is_behind(connection)


cdef bint is_behind(Connection connection) except -1:
    """Whether the peer has not taken what was sent before."""
    return not goes_direct(connection) if connection.direct else queued(connection) > 0


cdef int let_wait(Connection connection, key, LatestValue value) except -1:
    """Keep the newest value of a key; whether there was room for it."""
    cdef:
        LatestValues latest = connection.latest
        LatestSlot slot = None
        dict slots = None
        Py_ssize_t size = PyBytes_GET_SIZE(value.frame)
        Py_ssize_t growth = size
    if latest is not None:
        # Ours as long as keys are compared, by code of the user's: that may send what waits, and free it.
        slots = latest.slots
        slot = <LatestSlot>slots.get(key)
        if slot is not None:
            growth -= PyBytes_GET_SIZE(slot.value.frame)
    if growth > 0 and connection.options.max_write_buffer_size != 0 and not fits_write_buffer(connection, growth):
        return False
    if not can_send(connection):
        return False
    if connection.latest is None:
        connection.latest = LatestValues()
        connection.latest.delay = FIRST_LOOK
        look_later(connection)
    if slot is None or connection.latest is not latest or latest.slots is not slots:
        latest = connection.latest
        slots = latest.slots
        slot = <LatestSlot>slots.setdefault(key, LatestSlot())
        if connection.latest is not latest or latest.slots is not slots:
            # Keys are compared by code of the user's, and that has sent what waited.
            return let_wait(connection, key, value) if can_send(connection) else False
    if slot.value is not None:
        connection.replaced += 1
        latest.size -= PyBytes_GET_SIZE(slot.value.frame)
    slot.value = value
    latest.size += size
    note_queued(connection, connection.last_queued + held(connection))
    return True


cdef int release_when_taken(Connection connection) except -1:
    """Send what waits if the peer has caught up, look again later if not."""
    if connection.latest is not None and can_send(connection):
        has_caught_up(connection)
        if connection.latest is not None and connection.latest.timer is None:
            look_later(connection)
    return 0


cdef int look_later(Connection connection) except -1:
    cdef LatestValues latest = connection.latest
    latest.timer = connection.loop.call_later(latest.delay, latest_timer_due, connection)
    latest.delay = min(2 * latest.delay, LONGEST_LOOK)
    return 0


def latest_timer_due(Connection connection not None):
    if connection.latest is not None:
        connection.latest.timer = None
    release_when_taken(connection)
    tell_flow(connection)
