# Auto ping and the measuring of round trips: a timer of the loop, no task.

# Loops round times to milliseconds, so that a timer may come a little early.
cdef double TIMER_SLACK = 0.002


cdef int start_auto_ping(Connection connection) except -1:
    if connection.options.enable_auto_ping:
        connection.last_received = monotonic()
        set_auto_ping_timer(connection, connection.options.auto_ping_idle_timeout)
    return 0


cdef int set_auto_ping_timer(Connection connection, double delay) except -1:
    cancel_timer(connection)
    connection.timer = connection.loop.call_later(delay, connection._on_auto_ping_timer)
    return 0


cdef int auto_ping_due(Connection connection) except -1:
    """The time since the last sign of life, or for the reply to a ping, may be over."""
    cdef:
        ConnectionOptions options = connection.options
        double now = monotonic()
        double idle = now - connection.last_received
        double waited
    if connection.state != STATE_OPEN:
        return 0
    if connection.awaits_pong:
        waited = now - connection.ping_sent
        if options.ping_when_idle:
            # A pong queued behind a burst is no dead peer.
            waited = min(waited, idle)
        if waited >= options.auto_ping_reply_timeout - TIMER_SLACK:
            return no_reply(connection)
        if connection.measuring or not options.ping_when_idle:
            return set_auto_ping_timer(connection, options.auto_ping_reply_timeout - waited)
        connection.awaits_pong = False
        wake_pong_waiter(connection)
    elif connection.measuring:
        return set_auto_ping_timer(connection, options.auto_ping_reply_timeout)
    if options.ping_when_idle and idle < options.auto_ping_idle_timeout - TIMER_SLACK:
        return set_auto_ping_timer(connection, options.auto_ping_idle_timeout - idle)
    set_auto_ping_timer(connection, options.auto_ping_reply_timeout)
    return send_user_ping(connection)


cdef int no_reply(Connection connection) except -1:
    connection.options.logger.debug(
        "no reply to a ping within %s seconds, disconnecting", connection.options.auto_ping_reply_timeout)
    send_close_frame(connection, WSCloseCode.GOING_AWAY, b"no reply to a ping")
    return disconnect(connection, False)


cdef int send_user_ping(Connection connection) except -1:
    connection.awaits_pong = True
    connection.ping_sent = monotonic()
    try:
        connection.listener.send_user_specific_ping(connection.transport)
    except Exception as error:
        callback_failed(connection, "send_user_specific_ping", error)
    return 0


cdef int send_pending_pong(Connection connection) except -1:
    cdef bytes payload = connection.pending_pong
    connection.pending_pong = None
    if payload is not None and can_send(connection):
        send_frame(connection, FIN_BIT | WSMsgType.PONG, <const uint8_t*>PyBytes_AS_STRING(payload),
                   PyBytes_GET_SIZE(payload))
    return 0


cdef int check_stall(Connection connection) except -1:
    """Part of a frame may have waited for its rest too long."""
    cdef:
        double limit = connection.options.receive_timeout
        double silence = monotonic() - connection.last_received
    if not awaits_rest(connection):
        return 0
    if silence < limit - TIMER_SLACK:
        connection.stall_timer = connection.loop.call_later(limit - silence, connection._on_stall_timer)
        return 0
    sentence = f"received part of a frame and then nothing for {limit:g} seconds, expected the rest (receive_timeout)"
    return peer_failed(connection, WSCloseCode.POLICY_VIOLATION, sentence.encode())


cdef int pong_received(Connection connection) except -1:
    if not connection.awaits_pong:
        return 0
    connection.awaits_pong = False
    connection.pong_received_at = monotonic()
    wake_pong_waiter(connection)
    cdef double delay
    if (connection.options.enable_auto_ping and connection.state == STATE_OPEN and not connection.close_received
            and not connection.closes_when_answered):
        delay = connection.options.auto_ping_idle_timeout
        if not connection.options.ping_when_idle:
            delay = max(0.0, delay - (monotonic() - connection.ping_sent))
        set_auto_ping_timer(connection, delay)
    return 0


cdef int wake_pong_waiter(Connection connection) except -1:
    waiter = connection.pong_waiter
    connection.pong_waiter = None
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
    return 0


async def wait_pong(Connection connection not None):
    """Wait for the reply to the ping that is under way; one at a time does."""
    waiter = connection.pong_waiter = connection.loop.create_future()
    try:
        await waiter
    finally:
        connection.pong_waiter = None
    check_connected(connection)


cdef int check_connected(Connection connection) except -1:
    if connection.state != STATE_OPEN:
        raise ConnectionResetError("the connection ended while the round-trip time was measured")
    return 0


async def measure_roundtrip_time(Connection connection not None, Py_ssize_t rounds):
    if connection.roundtrip_lock is None:
        connection.roundtrip_lock = asyncio.Lock()
    times = []
    async with connection.roundtrip_lock:
        check_connected(connection)
        if connection.awaits_pong:
            await wait_pong(connection)
        connection.measuring = True
        try:
            for _ in range(rounds):
                send_user_ping(connection)
                if connection.awaits_pong:
                    await wait_pong(connection)
                check_connected(connection)
                times.append(connection.pong_received_at - connection.ping_sent)
        finally:
            connection.measuring = False
            connection.awaits_pong = False
    return times
