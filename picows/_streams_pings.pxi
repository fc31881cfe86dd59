# Pings whose pongs are waited for, and the keepalive that is made of them: no task, and one timer of the loop for all
# connections that have the same interval. A timer each would cost more memory than all else that keeps a connection alive.

# Loops round times to milliseconds, so that a timer may come a little early.
cdef double TIMER_SLACK = 0.002


cdef bint acknowledge(MessageStream stream, WSFrame pong) except -1:
    """Whether a PONG replies to a ping that is remembered. It acknowledges those before it as well (RFC 6455 5.5.3)."""
    cdef double now, latency
    if not stream.pings:
        return False
    payload = pong.get_payload_as_bytes()
    if payload not in stream.pings:
        return False
    now = monotonic()
    while True:
        acknowledged = next(iter(stream.pings))
        sent, waiter = stream.pings.pop(acknowledged)
        latency = now - <double>sent
        if waiter is not None and not waiter.done():
            waiter.set_result(latency)
        if acknowledged == payload:
            break
    if not stream.pings:
        stream.pings = None     # an empty dict keeps its places; the next ping is some time away
    stream.latency = latency
    if stream.keepalive is not None and not awaits_keepalive(stream):
        if now - stream.keepalive_sent >= stream.ping_interval:
            set_keepalive_timer(stream, 0)      # the next one is due, and waited for this
        elif stream.keepalive_timer is not None:
            wait_for_interval(stream)
    return True


cdef int forget_pings(MessageStream stream) except -1:
    """The connection has ended: tell who waits for a pong."""
    stop_keepalive(stream)
    stream.keepalive_queue = None
    stream.keepalive_context = None
    pings, stream.pings = stream.pings, None
    if pings:
        for _, waiter in pings.values():
            if waiter is not None and not waiter.done():
                waiter.set_exception(stream.end_error())
                waiter.exception()      # nobody has to look at it
    return 0


cdef inline bint awaits_keepalive(MessageStream stream) except -1:
    return stream.pings is not None and stream.keepalive in stream.pings


cdef int set_keepalive_timer(MessageStream stream, double delay) except -1:
    stop_keepalive(stream)
    stream.keepalive_timer = stream.loop.call_later(delay, keepalive_due, stream, context=stream.keepalive_context)
    return 0


cdef int stop_keepalive(MessageStream stream) except -1:
    """Nothing is waited for any more: neither in the queue nor by a timer."""
    leave_queue(stream)
    if stream.keepalive_timer is not None:
        stream.keepalive_timer.cancel()
        stream.keepalive_timer = None
    return 0


def keepalive_due(MessageStream stream not None, int turns=0):
    """The time for the next ping has come, or that for the pong to the last one is over."""
    cdef:
        double now = monotonic()
        double since = now - stream.keepalive_sent
    stream.keepalive_timer = None
    if stream.ended or stream._transport.is_close_frame_sent:
        return      # whoever closes has a limit of their own
    if not awaits_keepalive(stream):
        if since < stream.ping_interval - TIMER_SLACK:
            wait_for_interval(stream)
            return
    elif stream.ping_timeout > 0:
        if since < stream.ping_timeout - TIMER_SLACK:
            set_keepalive_timer(stream, stream.ping_timeout - since)
        elif turns == 0 and not is_read(stream) and not stalls(stream):
            set_keepalive_timer(stream, stream.ping_timeout)    # the pong may lie behind what nobody takes
        elif turns < 2:
            # Nor is it the peer's fault if the loop was held up: until the second turn it has read what was there.
            stream.keepalive_timer = stream.loop.call_soon(
                keepalive_due, stream, turns + 1, context=stream.keepalive_context)
        else:
            stream._transport.send_close(KEEPALIVE_FAILED, "keepalive ping timeout")
            stream._transport.disconnect(False)
        return
    send_keepalive(stream, now)


cdef int send_keepalive(MessageStream stream, double now) except -1:
    if stream.pings is not None:
        stream.pings.pop(stream.keepalive, None)    # one that never was answered, where that is allowed
    stream.keepalive = os.urandom(8)    # nobody can reply before they have read it
    stream.keepalive_sent = now
    stream.unwritten = 0
    if 0 < stream.ping_timeout < stream.ping_interval:
        set_keepalive_timer(stream, stream.ping_timeout)
    else:
        wait_for_interval(stream)
    stream.send_ping(stream.keepalive)
    return 0


cdef bint is_read(MessageStream stream) except -1:
    """Whether the socket is read: paused by us, or by the user."""
    try:
        return stream._transport.underlying_transport.is_reading()
    except (AttributeError, RuntimeError):
        return True     # it does not tell, or is closing


cdef bint stalls(MessageStream stream) except -1:
    """Whether the peer has taken nothing of what waits to be written since this was asked last. Who waits for it to take more
    takes no messages either, so that its pong would be waited for without an end."""
    cdef Py_ssize_t before = stream.unwritten
    stream.unwritten = stream._transport.write_buffer_size
    return 0 < before <= stream.unwritten
