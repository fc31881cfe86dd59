# How a connection ends: one way for protocol errors, failed callbacks and the user's disconnect().

# After a graceful disconnect we read and drop what the peer still sends, so that the kernel has no reason to reset the
# connection and destroy what is on its way to the peer. All times in seconds.
cdef double LINGER_QUIET = 1.0      # everything is acknowledged and the peer is silent, but does not close
cdef double LINGER_LIMIT = 5.0      # the peer goes on sending, or takes nothing of what waits for it
cdef double LINGER_TICK = 0.1
cdef double LINGER_TICK_TLS = 0.025
# A TLS connection cannot be half closed. It is closed when the peer has everything and either sent its CLOSE or has been
# silent for a while: its data would make the TLS shutdown fail. A peer that never falls silent sees the end of the TCP
# stream instead.
cdef double LINGER_TLS_QUIET = 0.25
cdef double LINGER_TLS_HALF_CLOSE = 0.5


cdef int disconnect(Connection connection, bint graceful) except -1:
    cdef WSTransport transport = connection.transport
    if connection.state == STATE_CLOSED or (graceful and connection.state == STATE_CLOSING):
        return 0
    underlying = transport.underlying_transport
    cancel_timer(connection)
    if graceful and connection.gathered is not None:
        flush(connection)
    connection.state = STATE_CLOSING
    wake_pong_waiter(connection)
    if not graceful:
        underlying.abort()
        return 0
    if underlying.is_closing():
        # The peer has closed: the transport writes what it holds, and nothing comes that could disturb it.
        return 0
    if not connection.over_tls and underlying.can_write_eof():
        underlying.write_eof()
    # The user may have paused it.
    if not underlying.is_reading():
        underlying.resume_reading()
    connection.linger_since = monotonic()
    connection.linger_unsent = unsent(connection)
    if connection.over_tls:
        return linger(connection)
    connection.last_received = connection.linger_since
    return set_linger_timer(connection)


cdef Py_ssize_t unsent(Connection connection) except -1:
    """Bytes that the peer has not acknowledged."""
    return connection.transport.underlying_transport.get_write_buffer_size() + (
        ws_unsent(connection.fd) if connection.fd >= 0 else 0)


cdef int set_linger_timer(Connection connection) except -1:
    connection.timer = connection.loop.call_later(
        LINGER_TICK_TLS if connection.over_tls else LINGER_TICK, connection._on_linger_timer)
    return 0


cdef int linger(Connection connection) except -1:
    """Called from time to time until the connection is lost."""
    cdef:
        WSTransport transport = connection.transport
        double now = monotonic()
        double silence = now - connection.last_received
        bint may_close
        Py_ssize_t left = unsent(connection)
    underlying = transport.underlying_transport
    if left < connection.linger_unsent:
        # A slow peer that reads keeps its time.
        connection.linger_unsent = left
        connection.linger_since = now
    if now - connection.linger_since >= LINGER_LIMIT:
        underlying.abort()
        return 0
    if left == 0 and not underlying.is_closing():
        if connection.over_tls:
            may_close = connection.close_received or silence >= LINGER_TLS_QUIET
        else:
            may_close = silence >= LINGER_QUIET
        if may_close:
            underlying.close()
        elif connection.over_tls and not connection.writing_closed and now - connection.linger_since >= LINGER_TLS_HALF_CLOSE:
            connection.writing_closed = True
            ws_shutdown_write(connection.fd)
    set_linger_timer(connection)
    return 0


cdef int close_with(Connection connection, int code, bytes reason) except -1:
    """Tell the peer why, and disconnect."""
    send_close_frame(connection, code, reason)
    return disconnect(connection, True)


cdef int protocol_error(Connection connection, Status status) except -1:
    """The one place where a fault of the codec becomes a close code and an exception."""
    cdef bytes sentence = status_sentence(status)
    error = WSProtocolError(close_codes[status_close_code(status)], sentence.decode())
    if connection.is_client:
        keep_error(connection.transport, error)
    connection.options.logger.debug("protocol error: %s", error)
    return close_with(connection, error.code, sentence[:MAX_CONTROL_PAYLOAD - 2])


cdef int callback_failed(Connection connection, str name, error) except -1:
    note_callback_error(connection, name, error)
    if connection.state != STATE_OPEN:
        return 0
    if isinstance(error, WSProtocolError):
        try:
            # As much of the reason as a CLOSE holds, cut between characters.
            message = str(error.message).encode()[:MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
            return close_with(connection, error.code, close_reason_bytes(error.code, message))
        except (TypeError, ValueError):
            connection.options.logger.error("%s raised a WSProtocolError that cannot be sent: %r", name, error)
    return close_with(connection, WSCloseCode.INTERNAL_ERROR, b"")


cdef int note_callback_error(Connection connection, str name, error) except -1:
    """The client's wait_disconnected raises the first one; all others are logged."""
    if not connection.is_client or connection.transport is None or not keep_error(connection.transport, error):
        connection.options.logger.error("%s failed", name, exc_info=error)
    return 0


cdef bint keep_error(WSTransport transport, error) except -1:
    """Keep what wait_disconnected is to raise; whether it is the first.

    The frames of its traceback refer to the listener and the transport, hence to this error: emptied, they are no cycle.
    """
    if transport._failure is not None:
        return False
    transport._failure = (error, error.__traceback__)
    cleared = set()     # users may have tied the causes into a ring
    while error is not None and id(error) not in cleared:
        cleared.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    return True


cdef int wake_all(Connection connection) except -1:
    waiters = connection.disconnect_waiters
    connection.disconnect_waiters = None
    if waiters is not None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
    wake_pong_waiter(connection)
    return 0
