# The timers of a connection, and the futures of those who wait for something of it.

# Loops round times to milliseconds, so that a timer may come a little early.
cdef double TIMER_SLACK = 0.002


@cython.final
cdef class OneMoreTurn:
    """Calls ``judge(connection, True)`` once the loop has read what waits; stands in the slot of the timer whose limit is over.

    The loop may have been held up, and then the peer's bytes lie in the kernel: uvloop looks at its timers before it reads
    again. Handlers of call_soon run before a loop reads (uvloop) or ahead of what it has read (asyncio): the second of two
    in a row has one whole reading before it. A timer would not do: of many that are due at once, older versions of libuv run
    those that were set meanwhile as well, before they read.
    """
    cdef:
        Connection connection
        object judge, handle

    def __cinit__(self, Connection connection not None, judge):
        self.connection = connection
        self.judge = judge
        self.handle = connection.loop.call_soon(self._read)

    def _read(self):
        self.handle = self.connection.loop.call_soon(self.judge, self.connection, True)

    def cancel(self):
        self.handle.cancel()


cdef inline void cancel_timer(Connection connection):
    if connection.timer is not None:
        connection.timer.cancel()
        connection.timer = None


cdef inline void cancel_stall_timer(Connection connection):
    if connection.stall_timer is not None:
        connection.stall_timer.cancel()
        connection.stall_timer = None


cdef inline int drop_latest(Connection connection) except -1:
    """Nothing waits under a key any more."""
    cdef LatestValues latest = connection.latest
    connection.latest = None
    if latest is not None and latest.timer is not None:
        latest.timer.cancel()
    return 0


cdef int wake_all(Connection connection) except -1:
    waiters = connection.disconnect_waiters
    connection.disconnect_waiters = None
    if waiters is not None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
    wake_pong_waiter(connection)
    return wake_drain_waiters(connection)


cdef int wake_drain_waiters(Connection connection) except -1:
    """There is room, or nothing more can be sent."""
    waiters = connection.drain_waiters
    connection.drain_waiters = None
    if waiters is not None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
    return 0


cdef int wake_pong_waiter(Connection connection, bint answered=False) except -1:
    waiter = connection.pong_waiter
    connection.pong_waiter = None
    if waiter is not None and not waiter.done():
        waiter.set_result(answered)
    return 0


async def wait_closed(Connection connection not None):
    if connection.state == STATE_CLOSED:
        return
    waiter = connection.loop.create_future()
    if connection.disconnect_waiters is None:
        connection.disconnect_waiters = []
    connection.disconnect_waiters.append(waiter)
    try:
        await waiter
    finally:
        if connection.disconnect_waiters is not None:
            connection.disconnect_waiters.remove(waiter)
