# How a connection ends: one way for protocol errors, failed callbacks and the user's disconnect().

# After a graceful disconnect we read and drop what the peer still sends, so that the kernel has no reason to reset the
# connection and destroy what is on its way to the peer. All times in seconds.
cdef double LINGER_QUIET = 1.0      # everything is acknowledged and the peer is silent, but does not close
cdef double LINGER_LIMIT = 5.0      # the peer goes on sending, or takes too little of what waits for it
# How many bytes a peer has to take for its time to begin anew, if it does not take all: one that takes a byte now and then
# would keep the connection, and all that waits, for as long as it likes.
cdef Py_ssize_t LINGER_STEP = 16 * 1024
cdef double LINGER_TICK = 0.1
cdef double LINGER_TICK_TLS = 0.025
# A tick that comes later by this: the loop stood still, and what the peer did meanwhile has not been read yet.
cdef double LINGER_STALL = 0.1
# A TLS connection cannot be half closed. It is closed when the peer has everything and either sent its CLOSE or has been
# silent for a while: its data would make the TLS shutdown fail. A peer that never falls silent sees the end of the TCP
# stream instead.
cdef double LINGER_TLS_QUIET = 0.25
cdef double LINGER_TLS_HALF_CLOSE = 0.5
# How long a client waits for the server to end TCP once both sides have said CLOSE, and a server for its listener.
cdef double SERVER_CLOSE_TIMEOUT = 10.0


cdef int send_close_frame(Connection connection, int code, bytes reason) except -1:
    cdef:
        uint8_t[MAX_CONTROL_PAYLOAD] payload
        size_t size = 0
    if not can_send(connection):
        return 0
    release_before_end(connection)
    if not can_send(connection):
        return 0
    if code != WSCloseCode.NO_INFO:
        size = write_close_payload(payload, code, <const uint8_t*>PyBytes_AS_STRING(reason), PyBytes_GET_SIZE(reason))
    # Before it is written: nothing follows a CLOSE, whatever happens in the write.
    note_close_sent(connection, code, reason)
    return send_frame(connection, FIN_BIT | OPCODE_CLOSE, payload, size)


cdef int disconnect(Connection connection, bint graceful) except -1:
    if connection.state == STATE_CLOSED or (graceful and connection.state == STATE_LINGERING):
        return 0
    if not graceful:
        return abort_connection(connection)
    release_before_end(connection)
    flush(connection)
    if connection.state >= STATE_LINGERING:
        return 0
    enter_lingering(connection)
    read_on(connection)
    start_linger(connection)
    if not connection.over_tls:
        connection.last_received = connection.linger_since
    return linger(connection, connection.linger_since)


cdef int read_on(Connection connection) except -1:
    """Read, though somebody has paused it: the end of the peer's stream would not be seen."""
    underlying = connection.transport.underlying_transport
    try:
        if not underlying.is_reading():
            underlying.resume_reading()
    except (AttributeError, RuntimeError):
        # asyncio's TLS stands on nothing any more: it was closed twice or, before 3.11, TCP was lost and we are told next.
        pass
    return 0


cdef int end_writing(Connection connection) except -1:
    """Half-close our side, where that is possible."""
    underlying = connection.transport.underlying_transport
    connection.writing_closed = True
    if underlying.can_write_eof():
        try:
            underlying.write_eof()
        except OSError:
            # It answered what we sent by a reset, and asyncio says so here. Nobody else would, if the user has paused reading.
            underlying.abort()
    return 0


cdef int close_transport(underlying) except -1:
    try:
        underlying.close()
    except RuntimeError:
        pass    # asyncio's TLS has begun to shut down because the peer did, and does not know that it may be closed then
    return 0


cdef int stream_ended(Connection connection) except -1:
    """The peer sends no more: the transport closes by itself once it has written what it holds. That has its limit, too."""
    if connection.state >= STATE_LINGERING:
        return 0
    release_before_end(connection)
    flush(connection)
    if connection.state >= STATE_LINGERING:
        return 0
    enter_lingering(connection)
    start_linger(connection)
    return set_linger_timer(connection)


cdef int start_linger(Connection connection) except -1:
    connection.linger_since = monotonic()
    connection.linger_unsent = unsent(connection)
    return 0


cdef int set_linger_timer(Connection connection) except -1:
    cancel_timer(connection)
    connection.linger_tick = monotonic()
    connection.timer = connection.loop.call_later(linger_interval(connection), linger_timer_due, connection)
    return 0


cdef inline double linger_interval(Connection connection) noexcept:
    return LINGER_TICK_TLS if connection.over_tls else LINGER_TICK


cdef bint loop_stood_still(Connection connection, double now) noexcept:
    """Whether to wait for another tick, because the loop had no turn to read and write in since the last one.

    uvloop runs its timers before it looks at its sockets. The time that was lost is not the peer's. Never twice in a row:
    a loop that is always late ends its connections, too.
    """
    cdef double late = now - connection.linger_tick - linger_interval(connection)
    connection.linger_stalled = late >= LINGER_STALL and not connection.linger_stalled
    if connection.linger_stalled:
        connection.linger_since += late
        connection.last_received += late
    return connection.linger_stalled


def linger_timer_due(Connection connection not None, bint has_read=False):
    cdef double now = connection.linger_tick
    if not has_read:
        now = monotonic()
        if loop_stood_still(connection, now):
            set_linger_timer(connection)
            return
        if now - connection.linger_tick - linger_interval(connection) >= LINGER_STALL:
            # Late every time, so it is judged all the same; but by what lay in the kernel meanwhile, too.
            connection.linger_tick = now
            connection.timer = OneMoreTurn(connection, linger_timer_due)
            return
    connection.timer = None
    linger(connection, now)


cdef int linger(Connection connection, double now) except -1:
    """Called from time to time until the connection is lost."""
    cdef:
        double silence
        bint may_close
        Py_ssize_t left
    if connection.state == STATE_CLOSED:
        return 0
    underlying = connection.transport.underlying_transport
    left = unsent(connection)
    if left <= connection.linger_unsent - LINGER_STEP or (left == 0 and connection.linger_unsent > 0):
        # A slow peer that reads keeps its time.
        connection.linger_unsent = left
        connection.linger_since = now
    if now - connection.linger_since >= LINGER_LIMIT:
        underlying.abort()
        return 0
    if not connection.over_tls and not connection.writing_closed and not underlying.is_closing() and queued(connection) == 0:
        # Not while it holds something: asyncio's would half-close behind that, and log an error if the peer is gone by then.
        end_writing(connection)
    if left == 0 and not underlying.is_closing():
        silence = now - connection.last_received
        if connection.over_tls:
            may_close = close_came(connection) or silence >= LINGER_TLS_QUIET
        else:
            may_close = silence >= LINGER_QUIET
        if may_close:
            close_transport(underlying)
        elif connection.over_tls and not connection.writing_closed and now - connection.linger_since >= LINGER_TLS_HALF_CLOSE:
            connection.writing_closed = True
            ws_shutdown_write(connection.fd)
    return set_linger_timer(connection)


cdef bint send_close_payload(Connection connection, uint8_t first, object message) except -1:
    """Send a CLOSE by its payload, the code and the reason as they travel; whether it was taken."""
    cdef:
        Py_buffer view
        bytes payload, reason
        int code = WSCloseCode.NO_INFO
        bint taken
    get_message(message, &view)
    try:
        payload = PyBytes_FromStringAndSize(<char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    if first != (FIN_BIT | OPCODE_CLOSE):
        raise ValueError("fin is False or a reserved bit is True, expected a CLOSE of one frame and no extension (RFC 6455 5.5)")
    if len(payload) == 1:
        raise ValueError("the message of a CLOSE has 1 byte, expected none, or a code of 2 bytes and a reason (RFC 6455 5.5.1)")
    if payload:
        code = payload[0] << 8 | payload[1]
        if code == WSCloseCode.NO_INFO:
            raise ValueError("the message of a CLOSE has the code 0, which may not travel; None sends no code (RFC 6455 7.4)")
    reason = close_reason_bytes(code, payload[2:])
    taken = can_send(connection)
    send_close_frame(connection, code, reason)
    limit_exchange(connection)
    return taken


cdef int close_when_answered(Connection connection) except -1:
    """Our CLOSE was sent: the connection ends when the peer's has come."""
    if not connection.state & CONNECTED:
        return 0
    connection.closes_when_answered = True
    flush(connection)
    if not connection.state & CONNECTED:
        return 0
    # A dead peer is found by the time-out of whoever closes.
    cancel_timer(connection)
    if not connection.state & DELIVERS and not connection.delivering:
        return end_closing_handshake(connection)
    return 0


cdef int answer_close(Connection connection) except -1:
    """The listener has seen the peer's CLOSE."""
    cdef WSCloseInfo received = connection.transport.close_handshake.recv
    if can_send(connection):
        send_close_frame(connection, received.code, (<str>(received.reason or "")).encode())
    return end_closing_handshake(connection)


cdef int end_closing_handshake(Connection connection) except -1:
    """Both sides have said CLOSE: now the server ends TCP, and the client waits for that (RFC 6455 7.1.1)."""
    if not connection.is_client:
        return disconnect(connection, True)
    flush(connection)
    return limit_exchange(connection)


cdef int limit_exchange(Connection connection) except -1:
    """Both sides have said CLOSE, and whoever is to end TCP may never do it: the peer, or a listener of ours."""
    if connection.state == STATE_CLOSE_EXCHANGED and connection.timer is None:
        connection.timer = connection.loop.call_later(SERVER_CLOSE_TIMEOUT, close_timer_due, connection)
    return 0


def close_timer_due(Connection connection not None, bint has_read=False):
    if not has_read:
        connection.timer = OneMoreTurn(connection, close_timer_due)
        return
    connection.timer = None
    disconnect(connection, not connection.is_client)


cdef int close_with(Connection connection, int code, bytes reason) except -1:
    """Tell the peer why, and disconnect."""
    send_close_frame(connection, code, reason)
    return disconnect(connection, True)


cdef int protocol_error(Connection connection, Status status) except -1:
    if (status == ERR_FRAME_TOO_BIG and connection.messages is not None
            and connection.messages.room() < connection.options.max_frame_size):
        return peer_failed(connection, WSCloseCode.MESSAGE_TOO_BIG, message_status_sentence(ERR_MESSAGE_TOO_BIG))
    return peer_failed(connection, status_close_code(status), status_sentence(status))


cdef int peer_failed(Connection connection, int code, bytes sentence) except -1:
    """The one place where a fault of the peer becomes a close code and an exception."""
    error = WSProtocolError(close_codes[code], sentence.decode())
    if connection.is_client:
        keep_error(connection.transport, error)
    connection.options.logger.debug("protocol error: %s", error)
    return close_with(connection, error.code, sentence[:MAX_CONTROL_PAYLOAD - 2])


cdef int callback_failed(Connection connection, str name, error) except -1:
    note_callback_error(connection, name, error)
    if not connection.state & CONNECTED or isinstance(error, EXIT):
        return 0
    if isinstance(error, WSProtocolError):
        try:
            # As much of the reason as a CLOSE holds, cut between characters.
            message = str(error.message).encode()[:MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
            return close_with(connection, error.code, close_reason_bytes(error.code, message))
        except (TypeError, ValueError):
            log_error(connection, f"{name} raised a WSProtocolError that cannot be sent: {error!r}", None)
    return close_with(connection, WSCloseCode.INTERNAL_ERROR, b"")
