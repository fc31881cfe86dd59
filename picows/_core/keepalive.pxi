# Limits on what the peer takes its time for, auto ping and the measuring of round trips: timers of the loop, no task.

# How often a stall is looked at within its limit. A shorter pause of reading may go unseen, and counts as silence then.
cdef double STALL_LOOKS = 4


cdef bint reading_paused(Connection connection) except -1:
    """Whether the user has paused reading: what the peer sent waits then, and its silence tells nothing."""
    underlying = connection.transport.underlying_transport
    try:
        return not underlying.is_reading() and not underlying.is_closing()
    except (AttributeError, RuntimeError):
        return False    # one that somebody else made may not tell, nor does asyncio's TLS that has lost its TCP


cdef int start_auto_ping(Connection connection) except -1:
    if connection.options.enable_auto_ping:
        connection.last_received = monotonic()
        set_auto_ping_timer(connection, connection.options.auto_ping_idle_timeout)
    return 0


cdef int set_auto_ping_timer(Connection connection, double delay) except -1:
    cancel_timer(connection)
    connection.timer = connection.loop.call_later(delay, auto_ping_timer_due, connection)
    return 0


def auto_ping_timer_due(Connection connection not None, bint has_read=False):
    connection.timer = None
    auto_ping_due(connection, has_read)
    tell_flow(connection)


cdef int auto_ping_due(Connection connection, bint has_read) except -1:
    """The time since the last sign of life, or for the reply to a ping, may be over."""
    cdef:
        ConnectionOptions options = connection.options
        double now = monotonic()
        double idle = now - connection.last_received
        double waited
        bint has_come
    if not connection.state & DELIVERS:
        return 0
    if not can_send(connection):
        return close_reply_due(connection, now, has_read)
    if connection.awaits_pong:
        waited = now - connection.ping_sent
        # A pong queued behind a burst is no dead peer. (Who measures waits for the pong, and for the last of the data that long.)
        has_come = options.ping_when_idle and connection.last_received > connection.ping_sent
        if has_come and connection.measuring:
            waited = idle
        if (connection.measuring or not has_come) and waited >= options.auto_ping_reply_timeout - TIMER_SLACK:
            return no_reply(connection, has_read)
        if connection.measuring or not has_come:
            return set_auto_ping_timer(connection, options.auto_ping_reply_timeout - waited)
        connection.awaits_pong = False
        wake_pong_waiter(connection, True)
    elif connection.measuring and not connection.awaits_numbered:
        return set_auto_ping_timer(connection, options.auto_ping_reply_timeout)
    if options.ping_when_idle and idle < options.auto_ping_idle_timeout - TIMER_SLACK:
        return set_auto_ping_timer(connection, options.auto_ping_idle_timeout - idle)
    set_auto_ping_timer(connection, options.auto_ping_reply_timeout)
    return send_user_ping(connection)


cdef int close_reply_due(Connection connection, double now, bint has_read) except -1:
    """Our CLOSE was sent, and no ping can be any more: all that the peer still sends is a sign of life."""
    cdef:
        double limit = connection.options.auto_ping_reply_timeout
        double silence
    if connection.close_reply_since == 0:
        connection.close_reply_since = connection.ping_sent if connection.awaits_pong else now
    silence = now - max(connection.close_reply_since, connection.last_received)
    if silence >= limit - TIMER_SLACK:
        return no_reply(connection, has_read)
    return set_auto_ping_timer(connection, limit - silence)


cdef int no_reply(Connection connection, bint has_read) except -1:
    cdef double limit = connection.options.auto_ping_reply_timeout
    if not has_read:
        if reading_paused(connection):
            return set_auto_ping_timer(connection, limit)
        connection.timer = OneMoreTurn(connection, auto_ping_timer_due)
        return 0
    connection.options.logger.debug("no reply to a %s within %s seconds, disconnecting",
                                    "ping" if can_send(connection) else "CLOSE", limit)
    send_close_frame(connection, WSCloseCode.GOING_AWAY, b"no reply to a ping")
    return disconnect(connection, False)


cdef int send_user_ping(Connection connection) except -1:
    connection.awaits_pong = True
    connection.ping_sent = monotonic()
    try:
        connection.listener.send_user_specific_ping(connection.transport)
    except BaseException as error:
        callback_failed(connection, "send_user_specific_ping", error)
    return 0


cdef int watch_stall(Connection connection) except -1:
    """Part of a frame has come: look from time to time whether the rest does."""
    return set_stall_timer(connection, connection.options.receive_timeout / STALL_LOOKS)


cdef int set_stall_timer(Connection connection, double delay) except -1:
    connection.stall_timer = connection.loop.call_later(delay, stall_timer_due, connection)
    return 0


def stall_timer_due(Connection connection not None, bint has_read=False):
    connection.stall_timer = None
    check_stall(connection, has_read)
    tell_flow(connection)


cdef int check_stall(Connection connection, bint has_read) except -1:
    """Part of a frame may have waited for its rest too long."""
    cdef:
        double limit = connection.options.receive_timeout
        double until_next_look = limit / STALL_LOOKS
        double now = monotonic()
        double silence
    if not awaits_rest(connection):
        return 0
    if not has_read and reading_paused(connection):
        # Reading may go on at any time until the next look: the peer gets its whole time from there.
        connection.stall_since = now + until_next_look
    silence = now - max(connection.last_received, connection.stall_since)
    if silence < limit - TIMER_SLACK:
        return set_stall_timer(connection, min(limit - silence, until_next_look))
    if not has_read:
        connection.stall_timer = OneMoreTurn(connection, stall_timer_due)
        return 0
    sentence = f"received part of a frame and then nothing for {limit:g} seconds, expected the rest (receive_timeout)"
    return peer_failed(connection, WSCloseCode.POLICY_VIOLATION, sentence.encode())


cdef inline bint awaits_rest(Connection connection) noexcept:
    """Whether part of a frame or of a message has come."""
    return connection.state & DELIVERS and (
        reader_unread(&connection.reader) != 0
        or (connection.messages is not None and connection.messages.fragments != 0))


cdef int pong_received(Connection connection) except -1:
    """The reply has come that is waited for, if any is."""
    if not awaits_reply(connection):
        return 0
    connection.awaits_numbered = False
    connection.roundtrip_time = monotonic() - connection.ping_sent
    wake_pong_waiter(connection, True)
    return end_ping(connection)


cdef inline bint awaits_reply(Connection connection) noexcept:
    return connection.awaits_pong or connection.awaits_numbered


cdef int end_ping(Connection connection) except -1:
    """The peer has shown that it lives: auto ping begins anew."""
    cdef double delay
    connection.awaits_pong = False
    if (connection.options.enable_auto_ping and connection.state & DELIVERS and not connection.closes_when_answered):
        delay = connection.options.auto_ping_idle_timeout
        if not connection.options.ping_when_idle:
            delay = max(0.0, delay - (monotonic() - connection.ping_sent))
        set_auto_ping_timer(connection, delay)
    return 0


cdef int send_numbered_ping(Connection connection) except -1:
    """A ping that no late reply to an earlier one can be taken for the reply to: it carries a number of its own."""
    cdef uint64_t number
    if connection.numbered_pings == 0:
        # No ping of the user's is likely to carry one of these.
        memcpy(&connection.first_number, PyBytes_AS_STRING(os.urandom(sizeof(number))), sizeof(number))
    number = connection.first_number + connection.numbered_pings
    connection.numbered_pings += 1
    connection.awaits_pong = connection.awaits_numbered = True
    connection.ping_sent = monotonic()
    send_frame(connection, FIN_BIT | WSMsgType.PING, <const uint8_t*>&number, sizeof(number))
    return 0


cdef int take_numbered_pong(Connection connection, WSFrame frame) except -1:
    """Whether a PONG replies to one of our numbered pings; if so, it is dealt with."""
    cdef uint64_t number
    if connection.numbered_pings == 0 or frame.payload_size != sizeof(number):
        return False
    memcpy(&number, frame.payload_ptr, sizeof(number))
    number -= connection.first_number
    if number >= connection.numbered_pings:
        return False
    if connection.awaits_numbered and number != connection.numbered_pings - 1:
        # Late; whoever measures goes on waiting.
        end_ping(connection)
    else:
        pong_received(connection)
    return True


async def wait_pong(Connection connection not None):
    """Wait for the reply to the ping that is under way; one at a time does."""
    waiter = connection.pong_waiter = connection.loop.create_future()
    try:
        answered = await waiter
    finally:
        connection.pong_waiter = None
    if not answered:
        raise no_round_trip()


cdef object no_round_trip():
    return ConnectionResetError("the connection is ending: the round-trip time cannot be measured")


async def measure_roundtrip_time(Connection connection not None, Py_ssize_t rounds):
    if connection.roundtrip_lock is None:
        connection.roundtrip_lock = asyncio.Lock()
    times = []
    # Not by `async with`: what Cython makes of it crashes where there was no memory for a traceback.
    await connection.roundtrip_lock.acquire()
    try:
        if connection.awaits_pong and may_ping(connection):
            await wait_pong(connection)
        if not may_ping(connection):
            raise no_round_trip()
        connection.measuring = True
        try:
            for _ in range(rounds):
                if not may_ping(connection):
                    raise no_round_trip()
                if (overrides(connection.listener, "send_user_specific_ping")
                        or overrides(connection.listener, "is_user_specific_pong")):
                    send_user_ping(connection)
                else:
                    send_numbered_ping(connection)
                    tell_flow(connection)
                if awaits_reply(connection):
                    await wait_pong(connection)
                times.append(connection.roundtrip_time)
        finally:
            connection.measuring = False
            connection.awaits_pong = connection.awaits_numbered = False
    finally:
        connection.roundtrip_lock.release()
    return times


cdef inline bint may_ping(Connection connection):
    return connection.state == STATE_OPEN
