# The asyncio protocol: what the loop's transport calls, handed on to the part that knows.

cdef class AsyncioProtocol(Connection):
    """A connection as its transport sees it."""

    def __cinit__(self, ConnectionOptions options not None, request=None, is_secure=None):
        self.options = options
        self.is_secure = is_secure
        self.is_client = options.is_client_side
        self.fd = -1
        self.last_fin = FIN_BIT
        self.roundtrip_time = NAN
        self.debug = options.logger.isEnabledFor(PICOWS_DEBUG_LL)
        self.handshake = (ResponseReader(request, options.compression) if self.is_client
                          else RequestReader(options.compression, options.subprotocols, options.origins))
        self.request = request
        reader_init(&self.reader, not self.is_client, options.max_frame_size)
        if self.is_client:
            self.upgrade_waiter = asyncio.get_running_loop().create_future()

    def connection_made(self, underlying):
        try:
            attach_to(self, underlying)
            begin_handshake(self)
        except BaseException as error:
            # Memory ran out. Nobody else would end it: it may have no time limit, and be half of a connection.
            if self.transport is None or not is_registered(self):
                self.state = STATE_CLOSED
            set_exception(self.upgrade_waiter, error)
            underlying.abort()
            raise
        if self.debug:
            self.options.logger.log(PICOWS_DEBUG_LL, "connection made by %r", underlying)

    def connection_lost(self, exc):
        if self.state == STATE_CLOSED:
            return
        # Whatever fails in between, as when memory runs out, the listener and who waits are told.
        try:
            if awaits_upgrade(self):
                fail_upgrade(self, exc)
            deliver_before_end(self)
        except BaseException as error:
            set_exception(self.upgrade_waiter, error)
            raise
        finally:
            try:
                detach(self, exc)
            finally:
                tell_end(self)

    def eof_received(self):
        if awaits_upgrade(self):
            fail_upgrade(self, None)
        deliver_before_end(self)
        stream_ended(self)
        tell_flow(self)
        # None lets the transport close, after it has written what it holds.

    def pause_writing(self):
        self.writing_paused = True
        if not self.in_write:
            tell_flow(self)

    def resume_writing(self):
        self.writing_paused = False
        wake_drain_waiters(self)
        if not self.in_write:
            release_when_taken(self)
            tell_flow(self)

    def get_buffer(self, Py_ssize_t sizehint):
        return lend_buffer(self)

    def buffer_updated(self, Py_ssize_t size):
        cdef ReadBuffer buffer = self.lent
        self.lent = None
        if self.state & DELIVERS:
            receive_frames(self, buffer, size)
        elif self.state == STATE_HANDSHAKE:
            receive_handshake(self, buffer, size)
        else:
            # Read and dropped: unread bytes would make the kernel reset the connection.
            buffer.lent_size = 0
            self.last_received = monotonic()

    async def wait_upgraded(self):
        """Client: wait until the opening handshake is done; returns the transport and the listener.

        Raises what ended the handshake otherwise. Has to be awaited once, or :meth:`abort` called.
        """
        try:
            await self.upgrade_waiter
            return self.transport, self.listener
        finally:
            self.upgrade_waiter = None
            if self.state == STATE_CLOSED:
                let_go(self)

    def abort(self):
        """Close the connection, if there is one."""
        self.upgrade_waiter = None
        if self.transport is not None:
            disconnect(self, False)
            # uvloop ends a transport without a word when it is cancelled between connection_made and its own end of connecting.
            OneMoreTurn(self, end_untold)


def end_untold(AsyncioProtocol connection not None, bint is_last):
    """The transport has had its time to tell that it was aborted."""
    connection.connection_lost(None)


class WSProtocol(AsyncioProtocol, asyncio.BufferedProtocol):
    """A `Connection` as asyncio wants it.

    ``WSProtocol(options, request=None, is_secure=None)``, the last two on the client side only.
    """
    __slots__ = ()


def watch_end(WSTransport transport not None, tuple watchers not None):
    """Call each of the functions with the transport when it has ended, behind ``on_ws_disconnected``.

    It keeps the tuple it is given, so that one may serve any number of transports.

    :returns: whether they will be called: False when it has ended already
    :raises RuntimeError: when the transport belongs to another thread
    """
    cdef Connection connection = checked_connection(transport, "watch_end")
    if connection.state == STATE_CLOSED:
        return False
    if connection.end_watchers is None:
        connection.end_watchers = watchers
    elif connection.end_watchers is not watchers:
        connection.end_watchers += tuple([watcher for watcher in watchers if watcher not in connection.end_watchers])
    return True


cdef int attach_to(Connection connection, underlying) except -1:
    cdef WSTransport transport = WSTransport.__new__(WSTransport)
    connection.thread_id = PyThread_get_thread_ident()
    connection.memory = get_thread_memory()
    connection.loop = asyncio.get_running_loop()
    transport._connection = connection
    transport.request = connection.request
    transport.is_client_side = connection.is_client
    connection.transport = transport
    transport.underlying_transport = underlying
    connection.over_tls = underlying.get_extra_info("sslcontext") is not None
    transport.is_secure = connection.over_tls if connection.is_secure is None else connection.is_secure
    sock = underlying.get_extra_info("socket")
    if sock is not None:
        connection.fd = sock.fileno()
    if connection.fd >= 0:
        ws_tune_tcp(connection.fd)
        connection.direct = ws_direct_io_supported() and not connection.over_tls
    return register(connection)


cdef int detach(Connection connection, exc) except -1:
    connection.state = STATE_CLOSED
    unregister(connection)
    connection.fd = -1
    connection.direct = False
    cancel_timer(connection)
    cancel_stall_timer(connection)
    cancel_factory(connection)
    drop_latest(connection)
    connection.write_buffers = None
    if connection.over_tls:
        # Before 3.11 asyncio's TLS transport warns that it was not closed, unless it is told: a lost one is not enough.
        close_transport(connection.transport.underlying_transport)
    if connection.debug:
        connection.options.logger.log(PICOWS_DEBUG_LL, "connection lost: %r", exc)
    stop_watching(connection.transport.underlying_transport, connection.loop)
    return 0


cdef int stop_watching(underlying, loop) except -1:
    """aiofastnet 1.2 lets the loop watch a socket behind connection_made, even if the connection has ended in it, and closes it
    so: the loop would go on watching the number, and whatever gets it next would miss its events."""
    if type(underlying).__module__ == "aiofastnet.selector_transport":
        # Its number may be another's already: a cancelled connection has its socket closed under the transport.
        fd = underlying.get_extra_info("socket").fileno()
        if fd >= 0:
            loop.remove_reader(fd)
    return 0


cdef int tell_end(Connection connection) except -1:
    cdef:
        WSListener listener = connection.listener
        WSTransport transport = connection.transport
    transport.is_disconnected = True
    try:
        if listener is not None:
            listener.on_ws_disconnected(transport)
    except BaseException as error:
        note_callback_error(connection, "on_ws_disconnected", error)
    if connection.end_watchers is not None:
        tell_end_watchers(connection)
    wake_all(connection)
    if connection.upgrade_waiter is None:
        let_go(connection)
    connection.handshake = None
    connection.lent = None
    connection.gathered = None
    if not connection.delivering:
        connection.buffer = None
    return 0


cdef int tell_end_watchers(Connection connection) except -1:
    watchers = connection.end_watchers
    connection.end_watchers = None
    for watcher in watchers:
        try:
            watcher(connection.transport)
        except BaseException as error:
            note_callback_error(connection, "watch_end", error)
    return 0


cdef inline void let_go(Connection connection) noexcept:
    # Nothing keeps a finished connection alive.
    connection.listener = None
    connection.transport = None
