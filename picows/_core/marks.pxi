# Marks of the transport's buffer: the listener is told that they were crossed, when nothing of ours is half done. drain() waits for
# them.

# So often drain() may return at once in a row. Then the event loop gets a turn: who sends in a loop would never hear of the
# end of the connection, and nobody else of anything.
cdef int MAX_DRAINS_IN_A_ROW = 128
# How often drain() looks where nobody tells, in seconds.
cdef double DRAIN_TICK = 0.01

cdef enum Mark:
    LOW_MARK = 0        # their places in what get_write_buffer_limits() returns
    HIGH_MARK = 1

# Those of a transport that was not given others, in bytes.
cdef tuple USUAL_MARKS = (16 * 1024, 64 * 1024)


cdef inline int tell_flow(Connection connection) except -1:
    """The end of every call of ours that may have written: the transport may have reported something meanwhile.

    Transports call pause_writing, those over TLS resume_writing too, from inside of their write(). The listener may do
    anything there, so it is told only now, when nothing of ours is half done.
    """
    if connection.writing_paused != connection.pause_told:
        tell_listener_of_flow(connection)
    return 0


cdef int tell_listener_of_flow(Connection connection) except -1:
    cdef:
        WSListener listener = connection.listener
        str name
    while (connection.writing_paused != connection.pause_told and listener is not None
            and connection.state != STATE_CLOSED):
        # Whoever is producing inside of resume_writing has to be stopped at once. To go on can wait until the callback
        # that is running has returned, or callbacks would nest without end.
        if connection.telling and not connection.writing_paused:
            return 0
        if not connection.writing_paused:
            send_pending_pong(connection)
            if connection.writing_paused:
                continue
        elif not connection.slow_peer_noted and not overrides(listener, "pause_writing"):
            connection.slow_peer_noted = True
            # Who is going to be aborted gets its line then.
            log = connection.options.logger.debug if aborts_slow_peers(connection.options) else connection.options.logger.info
            log("the peer is slow: %d bytes wait to be sent; override pause_writing to stop producing meanwhile",
                queued(connection))
        connection.pause_told = connection.writing_paused
        name = "pause_writing" if connection.pause_told else "resume_writing"
        connection.telling += 1
        try:
            if connection.pause_told:
                listener.pause_writing()
            else:
                listener.resume_writing()
        except BaseException as error:
            callback_failed(connection, name, error)
        finally:
            connection.telling -= 1
    return 0


cdef int send_pending_pong(Connection connection) except -1:
    cdef bytes payload = connection.pending_pong
    connection.pending_pong = None
    if payload is not None and can_send(connection):
        send_frame(connection, FIN_BIT | WSMsgType.PONG, <const uint8_t*>PyBytes_AS_STRING(payload),
                   PyBytes_GET_SIZE(payload))
    return 0


async def wait_drained(Connection connection not None):
    """Wait while the transport holds more than it wants to, or until nothing can be sent any more."""
    cdef ThreadMemory memory = connection.memory
    memory.drains_in_a_row += 1
    if connection.writing_paused or holds_more_than(connection, HIGH_MARK):
        memory.drains_in_a_row = 0
        if connection.writing_paused and can_send(connection):
            await wait_for_room(connection)
        while holds_more_than(connection, LOW_MARK) and can_send(connection):
            await asyncio.sleep(DRAIN_TICK)
    elif memory.drains_in_a_row >= MAX_DRAINS_IN_A_ROW:
        memory.drains_in_a_row = 0
        await asyncio.sleep(0)
    if not can_send(connection):
        raise ConnectionResetError("the connection is closing or has ended: nothing can be sent any more")


async def wait_for_room(Connection connection not None):
    waiter = connection.loop.create_future()
    if connection.drain_waiters is None:
        connection.drain_waiters = []
    connection.drain_waiters.append(waiter)
    try:
        await waiter
    finally:
        if connection.drain_waiters is not None and waiter in connection.drain_waiters:
            connection.drain_waiters.remove(waiter)


cdef bint holds_more_than(Connection connection, Mark mark) except -1:
    """Whether more waits than a mark, though the transport says that there is room.

    It does not know what waits under keys. And the event loops' own TLS forgets what it has given to TCP, in which all of a burst
    may wait.
    """
    if not (connection.over_tls or connection.latest is not None) or connection.state == STATE_CLOSED:
        return False
    try:
        limits = connection.transport.underlying_transport.get_write_buffer_limits()
    except (AttributeError, NotImplementedError, RuntimeError):
        if connection.latest is None:
            return False    # it cannot tell, as asyncio's TLS before 3.11
        limits = USUAL_MARKS
    return queued(connection) + held(connection) > limits[<int>mark]
