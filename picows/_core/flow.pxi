# What waits for the peer: how much, and what happens to a slow one.

cdef Py_ssize_t queued(Connection connection) except -1:
    """Bytes that were given to the transport and that the kernel has not taken."""
    cdef Py_ssize_t size = 0
    underlying = connection.transport.underlying_transport
    if connection.write_buffers is None:
        if not connection.over_tls:
            return underlying.get_write_buffer_size()
        connection.write_buffers = write_buffers(underlying)
    for size_of in connection.write_buffers:
        size += size_of()
    return size


cdef Py_ssize_t held(Connection connection) noexcept:
    """Bytes that the transport was not given yet."""
    cdef Py_ssize_t size = 0
    if connection.gathered is not None:
        size += connection.gathered.size
    if connection.latest is not None:
        size += connection.latest.size
    return size


cdef Py_ssize_t unsent(Connection connection) except -1:
    """Bytes that the peer has not acknowledged."""
    return queued(connection) + (ws_unsent(connection.fd) if connection.fd >= 0 else 0)


cdef inline int may_queue(Connection connection, uint8_t first, Py_ssize_t size) except -1:
    """Whether a frame may wait behind what the peer has not taken; otherwise the policy for slow peers was followed."""
    # Asked only while something waits. What goes to a peer that reads costs one branch, control frames always pass.
    if not connection.transport_queued or connection.options.max_write_buffer_size == 0 or first & OPCODE_CONTROL_BIT:
        return True
    # Over TLS something may always wait. Below the transport's high-water mark it is less than we would allow by ourselves.
    if connection.options.listener_may_lift_limit and not connection.writing_paused and connection.latest is None:
        return True
    return fits_write_buffer(connection, size)


cdef int fits_write_buffer(Connection connection, Py_ssize_t size) except -1:
    cdef:
        Py_ssize_t limit = connection.options.max_write_buffer_size
        Py_ssize_t waiting = queued(connection) + held(connection)
    # While nothing waits a frame of any size is taken: the peer is not slow.
    if waiting == 0 or size <= limit - waiting:
        return True
    if connection.options.listener_may_lift_limit and overrides(connection.listener, "pause_writing"):
        return True
    if connection.options.slow_peer == WSSlowPeerPolicy.DROP_NEWEST:
        return False
    error = WSSlowPeerError(waiting, size, limit)
    if connection.options.slow_peer == WSSlowPeerPolicy.RAISE:
        raise error
    if connection.is_client:
        keep_error(connection.transport, error)
    abort_connection(connection)
    message = f"the connection is aborted: {error}; override pause_writing to stop producing in time"
    if is_first_line(connection):
        connection.options.logger.warning(message)
    else:
        connection.options.logger.debug(message)
    return False
