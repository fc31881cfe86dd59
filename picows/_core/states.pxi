# What moves a connection from one state to the next: connection.pxi draws them.

@cython.final
cdef class PendingAnswer:
    """Stands in the slot of the handshake while a listener factory that is a coroutine has not decided yet."""
    cdef:
        object reader               # the RequestReader
        object task                 # of the factory

    def __cinit__(self, reader, task):
        self.reader = reader
        self.task = task


# Factories that were cancelled, until they have cleaned up: a loop holds its tasks weakly. Threads may share it, for to add
# and to discard are one step each.
cdef set cancelled_factories = set()


cdef inline int cancel_factory(Connection connection) except -1:
    """Nobody waits for the decision of a factory any more, if there is one to be made."""
    if isinstance(connection.handshake, PendingAnswer):
        task = (<PendingAnswer>connection.handshake).task
        connection.handshake = None
        cancelled_factories.add(task)
        task.add_done_callback(cancelled_factories.discard)
        task.cancel()
    return 0


cdef int open_frames(Connection connection, WSListener listener) except -1:
    """The upgrade is done."""
    cdef Registry registry = connection.options.registry
    cancel_timer(connection)
    connection.state = STATE_OPEN
    connection.since = time()
    if registry is None:
        connection.listener = listener
    else:
        # Other threads list those that have a listener, and look at what was set before.
        with cython.critical_section(registry):
            connection.listener = listener
    return 0


cdef inline void show_handshake(Connection connection, WSCloseHandshake handshake) noexcept:
    # Any thread may read it, by `shown_handshake`. Without a GIL one that has just found the old one may not have taken its
    # reference yet, so that one lives on. There are two steps at most, hence one place.
    cdef WSTransport transport = connection.transport
    connection.shown_before = transport.close_handshake
    Py_INCREF(handshake)
    write_close_handshake(transport, handshake)
    Py_DECREF(connection.shown_before)      # the reference of the field


cdef int note_close_sent(Connection connection, int code, bytes reason) except -1:
    cdef:
        WSTransport transport = connection.transport
        WSCloseInfo received = transport.close_handshake.recv if transport.close_handshake is not None else None
    sent = WSCloseInfo(named_close_code(code), reason.decode() if reason else None)
    connection.state = <State>(connection.state & ~SENDS)
    if connection.state == STATE_CLOSE_EXCHANGED:
        cancel_timer(connection)    # of auto ping
    transport.is_close_frame_sent = True
    show_handshake(connection, WSCloseHandshake(sent, received, received is not None))
    return wake_drain_waiters(connection)


cdef int note_close_received(Connection connection, WSFrame frame) except -1:
    cdef:
        WSTransport transport = connection.transport
        WSCloseInfo sent = transport.close_handshake.sent if transport.close_handshake is not None else None
    received = WSCloseInfo(named_close_code(frame.get_close_code()), frame.get_close_reason())
    connection.state = <State>(connection.state & ~DELIVERS)
    show_handshake(connection, WSCloseHandshake(sent, received, sent is None))
    # Nothing that comes behind it is looked at (RFC 6455 5.5.1): no reply to a ping either.
    cancel_timer(connection)
    return wake_pong_waiter(connection)


cdef int enter_lingering(Connection connection) except -1:
    cancel_timer(connection)
    cancel_factory(connection)
    drop_latest(connection)
    connection.state = STATE_LINGERING
    wake_drain_waiters(connection)
    return wake_pong_waiter(connection)


cdef int abort_connection(Connection connection) except -1:
    """End it at once: what waits is dropped."""
    enter_lingering(connection)
    connection.transport.underlying_transport.abort()
    return 0
