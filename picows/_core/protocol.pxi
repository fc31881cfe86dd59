# The asyncio protocol: one connection from the first byte of its upgrade to its end.

cdef enum State:
    STATE_HANDSHAKE
    STATE_OPEN
    STATE_CLOSING      # disconnect() was called: nothing more is sent or delivered
    STATE_CLOSED


cdef class Connection:
    """The state of one connection. Everything here happens on the thread that `connection_made` was called on.

    References: the asyncio transport holds this object, which holds the WSTransport and the listener until the end of
    the connection; the WSTransport holds this object. `connection_lost` lets go of both, so that no cycle is left.
    """
    cdef:
        readonly WSTransport transport
        readonly WSListener listener
        ConnectionOptions options
        ThreadMemory memory
        ReadBuffer buffer           # what `reader` stands in; None while nothing incomplete waits
        ReadBuffer lent             # what get_buffer gave out last
        Py_ssize_t large_frame      # the size of the last frame that did not come in one read, 0 after a smaller one
        WriteBuffer gathered        # what waits for the end of a burst, or of a cork; None while nothing does
        MessageAssembler messages   # None while the listener wants frames
        object deflater             # None: no compression was agreed on
        object loop
        object request              # client: the WSUpgradeRequest to be sent, ...
        object is_secure            # ... and whether its URL says wss; None: what the transport says
        object handshake            # RequestReader or ResponseReader, until the upgrade is done
        object upgrade_waiter       # client: a future that tells how the upgrade ended
        object timer                # of the phase: handshake, auto ping, closing, linger
        object stall_timer          # runs while part of a frame is there, if that is bounded
        bytes pending_pong          # the answer to the last ping, while the peer does not read
        list disconnect_waiters     # futures, made when somebody waits
        object pong_waiter          # a future, made when somebody waits for the reply to a ping
        object roundtrip_lock       # made when a round trip is measured
        Reader reader
        Py_ssize_t place            # in the registry of the server
        unsigned long thread_id
        double last_received        # by monotonic(); kept for auto ping, and for how a TLS connection is closed
        double ping_sent
        double pong_received_at
        double close_reply_since    # since when auto ping waits for the peer's CLOSE, 0: it does not
        double stall_since          # the silence within a frame counts from here at the earliest: reading was paused
        double linger_since         # since when the linger time counts
        double linger_tick          # when it was looked at last
        Py_ssize_t linger_unsent    # what the peer had not acknowledged then
        tuple write_buffers         # what tells how much waits under TLS, once that was asked
        uint64_t first_number       # the pings of measure_roundtrip_time carry this number, ...
        uint64_t numbered_pings     # ... and as many were sent, each with the next one
        State state
        int fd
        int corks                   # frames gather while there are any: open cork() blocks, and a burst that is answered
        bint is_client
        bint over_tls               # to the server, or to a proxy before it
        bint direct                 # the socket may be written to
        bint transport_queued       # the transport was given bytes that it may not have written yet
        bint delivering
        bint burst_corked           # one of the corks is that of the burst which is being delivered
        bint close_received
        bint closes_when_answered   # close() waits for the peer's CLOSE
        bint in_write               # the transport is writing: what it reports meanwhile is told when our own call is done
        bint writing_paused         # what the transport has reported ...
        bint pause_told             # ... and what the listener knows of it
        int telling                 # the listener is in pause_writing or resume_writing
        bint deflating              # a message that is being sent in fragments is compressed
        bint awaits_pong
        bint awaits_numbered        # measure_roundtrip_time waits for the reply to the last numbered ping
        bint measuring
        bint writing_closed
        bint linger_stalled         # the last look at it came too late to judge
        bint slow_peer_noted
        bint debug

    def __cinit__(self, ConnectionOptions options not None, request=None, is_secure=None):
        self.options = options
        self.is_secure = is_secure
        self.is_client = options.is_client_side
        self.fd = -1
        self.debug = options.logger.isEnabledFor(PICOWS_DEBUG_LL)
        self.handshake = (ResponseReader(request, options.compression) if self.is_client
                          else RequestReader(options.compression))
        self.request = request
        reader_init(&self.reader, not self.is_client, options.max_frame_size)

    def connection_made(self, underlying):
        cdef WSTransport transport = WSTransport.__new__(WSTransport)
        self.thread_id = PyThread_get_thread_ident()
        self.memory = get_thread_memory()
        self.loop = asyncio.get_running_loop()
        transport._connection = self
        transport.request = self.request
        transport.is_client_side = self.is_client
        self.transport = transport
        transport.underlying_transport = underlying
        self.over_tls = underlying.get_extra_info("sslcontext") is not None
        transport.is_secure = self.over_tls if self.is_secure is None else self.is_secure
        sock = underlying.get_extra_info("socket")
        if sock is not None:
            self.fd = sock.fileno()
        if self.fd >= 0:
            ws_tune_tcp(self.fd)
            self.direct = ws_direct_io_supported() and not self.over_tls
        register(self)
        if self.options.handshake_timeout is not None:
            self.timer = self.loop.call_later(self.options.handshake_timeout, self._on_handshake_timeout)
        if self.is_client:
            self.upgrade_waiter = self.loop.create_future()
            write_head(self, self.request.to_bytes())
        if self.debug:
            self.options.logger.log(PICOWS_DEBUG_LL, "connection made by %r", underlying)

    def connection_lost(self, exc):
        cdef:
            WSListener listener = self.listener
            WSTransport transport = self.transport
            bint was_upgraded = listener is not None and self.state != STATE_HANDSHAKE
        if self.state == STATE_CLOSED:
            return
        if awaits_upgrade(self):
            self._fail_upgrade(exc)
        self.state = STATE_CLOSED
        unregister(self)
        self.fd = -1
        self.direct = False
        cancel_timer(self)
        cancel_stall_timer(self)
        self.write_buffers = None
        transport.is_disconnected = True
        if self.over_tls:
            # Before 3.11 asyncio's TLS transport warns that it was not closed, unless it is told: a lost one is not enough.
            close_transport(transport.underlying_transport)
        if self.debug:
            self.options.logger.log(PICOWS_DEBUG_LL, "connection lost: %r", exc)
        try:
            if was_upgraded:
                listener.on_ws_disconnected(transport)
        except BaseException as error:
            note_callback_error(self, "on_ws_disconnected", error)
        wake_all(self)
        if self.upgrade_waiter is None:
            let_go(self)
        self.handshake = None
        self.lent = None
        self.gathered = None
        if not self.delivering:
            self.buffer = None

    def eof_received(self):
        if awaits_upgrade(self):
            self._fail_upgrade(None)
        stream_ended(self)
        # None lets the transport close, after it has written what it holds.

    def pause_writing(self):
        self.writing_paused = True
        if not self.in_write:
            tell_flow(self)

    def resume_writing(self):
        self.writing_paused = False
        if not self.in_write:
            tell_flow(self)

    def get_buffer(self, Py_ssize_t sizehint):
        cdef:
            ReadBuffer buffer
            size_t unread = reader_unread(&self.reader)
            size_t space = 0
        if PyThread_get_thread_ident() != self.thread_id:
            raise RuntimeError(
                f"the connection belongs to thread {self.thread_id}, but its loop now runs in thread {PyThread_get_thread_ident()}")
        if self.buffer is not None and not self.delivering:
            reader_space(&self.reader, &space)
        if space == 0 and (self.delivering or unread > SHARED_READ_SIZE // 2):
            # A loop was run inside a callback and reads more, or it was stopped there: the frame of that callback keeps
            # its block, all behind it goes elsewhere. The unread bytes move before the old block may be freed.
            buffer = ReadBuffer(<Py_ssize_t>unread + SHARED_READ_SIZE)
            reader_attach(&self.reader, buffer.data, buffer.capacity)
            self.buffer = buffer
            reader_space(&self.reader, &space)
        if space:
            buffer = self.buffer
            buffer.lent_from = <Py_ssize_t>self.reader.end
            buffer.lent_size = <Py_ssize_t>space
        elif (self.large_frame and unread == 0 and self.memory.spare is not None
                and self.memory.spare.capacity >= self.large_frame):
            # Large frames seldom come alone: the next one is read straight to its place.
            buffer = self.memory.spare
            buffer.lent_from = 0
            buffer.lent_size = self.large_frame
        else:
            # An incomplete small frame goes to the front of the shared block when there is more: see buffer_updated.
            buffer = take_read_buffer(self.memory)
            buffer.lent_from = <Py_ssize_t>unread
            buffer.lent_size = buffer.capacity - <Py_ssize_t>unread
        self.lent = buffer
        return buffer

    def buffer_updated(self, Py_ssize_t size):
        cdef:
            ReadBuffer buffer = self.lent
            Py_ssize_t capacity = buffer.lent_from + buffer.lent_size
        self.lent = None
        buffer.lent_size = 0
        if self.state == STATE_OPEN and not self.close_received:
            if self.options.enable_auto_ping or self.over_tls or self.options.receive_timeout:
                self.last_received = monotonic()
            if buffer is not self.buffer:
                attach(self, buffer, capacity)
            reader_commit(&self.reader, size)
            deliver(self)
        elif self.state == STATE_HANDSHAKE:
            self._handshake_received(buffer, size)
        else:
            # Read and dropped: unread bytes would make the kernel reset the connection.
            self.last_received = monotonic()

    def _handshake_received(self, ReadBuffer buffer, Py_ssize_t size):
        cdef Py_ssize_t rest
        data = PyBytes_FromStringAndSize(<char*>buffer.data + buffer.lent_from, size)
        try:
            if not self.handshake.feed(data):
                return
        except WSHandshakeError as error:
            self._handshake_failed(error)
            return
        # Frames may have come with the head. They lie at the end of what was received, and are next, whatever the user's
        # callbacks do meanwhile.
        rest = len(self.handshake.rest)
        take(self.memory, buffer)
        self.buffer = buffer
        self.reader.data = buffer.data
        self.reader.capacity = buffer.capacity
        self.reader.end = buffer.lent_from + size
        self.reader.start = self.reader.end - rest
        self.delivering = True
        try:
            if self.is_client:
                self._accept_response(self.handshake.response)
            else:
                self._answer_request()
        finally:
            self.delivering = False
            self.handshake = None
        deliver(self)

    def _deliver_rest(self):
        if not self.delivering:
            deliver(self)

    def _answer_request(self):
        cdef WSTransport transport = self.transport
        transport.request = self.handshake.request
        listener = None
        try:
            result = self.options.listener_factory(transport.request)
            response, head, listener = answer(self.handshake, result)
            if listener is not None and not isinstance(listener, WSListener):
                raise TypeError(
                    f"the listener factory returned a {type(listener).__name__}, expected a WSListener, "
                    "a WSUpgradeResponseWithListener or None")
        except BaseException as error:
            if isinstance(error, EXIT):
                exit_loop(self, error)
                disconnect(self, False)
                return
            self.options.logger.exception("the listener factory failed for a request of %r", transport.request.path)
            listener = None
            response, head, _ = answer(self.handshake, failed_factory_result())
        if self.state != STATE_HANDSHAKE:
            return
        transport.response = response
        write_head(self, head)
        if listener is None:
            disconnect(self, True)
        else:
            self._open(listener)

    def _accept_response(self, response):
        self.transport.response = response
        try:
            listener = self.options.listener_factory(self.transport.request, response)
            if not isinstance(listener, WSListener):
                raise TypeError(f"the listener factory returned a {type(listener).__name__}, expected a WSListener")
        except BaseException as error:
            if isinstance(error, EXIT):
                exit_loop(self, error)
            set_exception(self.upgrade_waiter, raisable("the listener factory", error))
            disconnect(self, False)
            return
        # Told before the callback, which may run a loop, and sees ws_connect return in it if it does: the upgrade is over.
        if awaits_upgrade(self):
            self.upgrade_waiter.set_result(None)
        self._open(listener)

    def _open(self, WSListener listener):
        cancel_timer(self)
        self.listener = listener
        if self.options.registry is not None:
            self.options.registry.upgraded += 1
        if self.options.assemble_messages:
            start_messages(self, self.handshake.agreement)
        self.state = STATE_OPEN
        start_auto_ping(self)
        try:
            listener.on_ws_connected(self.transport)
        except BaseException as error:
            callback_failed(self, "on_ws_connected", error)

    def _handshake_failed(self, error):
        if self.is_client:
            set_exception(self.upgrade_waiter, error)
            disconnect(self, False)
            return
        if self.debug:
            self.options.logger.log(PICOWS_DEBUG_LL, "request refused: %s", error)
        self.transport.response = error.response
        write_head(self, error.response.to_bytes())
        disconnect(self, True)

    def _fail_upgrade(self, exc):
        if exc is None:
            try:
                self.handshake.feed_eof()
            except WSError as error:
                exc = error
        set_exception(self.upgrade_waiter, exc)

    def _on_handshake_timeout(self, bint has_read=False):
        if not has_read:
            self.timer = OneMoreTurn(self.loop, self._on_handshake_timeout)
            return
        self.timer = None
        if awaits_upgrade(self):
            set_exception(self.upgrade_waiter, asyncio.TimeoutError(
                f"the server did not finish the opening handshake within {self.options.handshake_timeout} seconds"))
        elif self.debug:
            self.options.logger.log(PICOWS_DEBUG_LL, "the client did not finish the opening handshake in time")
        disconnect(self, False)

    def _on_auto_ping_timer(self, bint has_read=False):
        self.timer = None
        auto_ping_due(self, has_read)
        tell_flow(self)

    def _on_linger_timer(self):
        self.timer = None
        linger(self)

    def _on_close_timeout(self, bint has_read=False):
        if not has_read:
            self.timer = OneMoreTurn(self.loop, self._on_close_timeout)
            return
        self.timer = None
        disconnect(self, False)

    def _on_stall_timer(self, bint has_read=False):
        self.stall_timer = None
        check_stall(self, has_read)
        tell_flow(self)

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


class WSProtocol(Connection, asyncio.BufferedProtocol):
    """`Connection` as asyncio wants it.

    ``WSProtocol(options, request=None, is_secure=None)``, the last two on the client side only.
    """
    __slots__ = ()


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
            connection.options.logger.info(
                "the peer is slow: %d bytes wait to be sent; override pause_writing to stop producing meanwhile",
                connection.transport.underlying_transport.get_write_buffer_size())
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


cdef inline void take(ThreadMemory memory, ReadBuffer buffer) noexcept:
    if memory.read_buffer is buffer:
        memory.read_buffer = None
    elif memory.spare is buffer:
        memory.spare = None


cdef inline int attach(Connection connection, ReadBuffer buffer, Py_ssize_t capacity) except -1:
    """Go on reading in another block: bytes of an incomplete frame move to its front, which was left free."""
    take(connection.memory, buffer)
    reader_attach(&connection.reader, buffer.data, capacity)
    connection.buffer = buffer
    return 0


cdef int deliver(Connection connection) except -1:
    """Call the listener for each complete frame that was received, then put the memory in order."""
    cdef:
        ReadBuffer buffer = connection.buffer
        bint nested = connection.delivering
    connection.delivering = True
    try:
        while connection.state == STATE_OPEN:
            try:
                deliver_frames(connection)
                break
            except BaseException as error:
                if isinstance(error, EXIT):
                    exit_loop(connection, error)
                    # If the loop is run again, it goes on with the frames behind this one.
                    connection.loop.call_soon(connection._deliver_rest)
                    break
                # Whoever raises a WSProtocolError wants the connection closed.
                if (connection.options.disconnect_on_exception or isinstance(error, WSProtocolError)
                        or connection.state != STATE_OPEN):
                    callback_failed(connection, "on_ws_frame", error)
                    break
                connection.options.logger.exception("on_ws_frame failed, the connection stays open")
                flush(connection)
        if connection.close_received and connection.state == STATE_OPEN and (
                connection.options.enable_auto_close or connection.closes_when_answered):
            answer_close(connection)
    finally:
        connection.delivering = nested
        if connection.burst_corked and not nested:
            connection.burst_corked = False
            uncork(connection)
        if buffer is not None and connection.buffer is not buffer:
            give_back(connection.memory, buffer, connection.loop)
        if connection.buffer is not None:
            settle(connection, connection.buffer)
        if connection.options.receive_timeout and connection.stall_timer is None and awaits_rest(connection):
            watch_stall(connection)
    return tell_flow(connection)


cdef int deliver_frames(Connection connection) except -1:
    cdef:
        ThreadMemory memory = connection.memory
        WSListener listener = connection.listener
        WSTransport transport = connection.transport
        WSFrame frame = memory.frame
        Status status
        # One look-up for a burst. A listener of a Cython class without a Python subclass is called through its vtable.
        object callback = None if is_compiled(listener) else (<object>listener).on_ws_frame
    memory.frame = None
    if frame is None:
        frame = WSFrame.__new__(WSFrame)
    try:
        while connection.state == STATE_OPEN and not connection.close_received:
            status = reader_next(&connection.reader)
            if status != STATUS_FRAME:
                if status != STATUS_NEED_MORE:
                    protocol_error(connection, status)
                break
            if connection.messages is None:
                fill_frame(frame, &connection.reader, connection.buffer)
            elif not next_message(connection, frame):
                continue
            if connection.debug:
                connection.options.logger.log(PICOWS_DEBUG_LL, "received %s", str(frame))
            if not frame.last_in_buffer and connection.options.coalesce_writes:
                # Not alone in its burst: one read, one write.
                if not connection.burst_corked:
                    connection.burst_corked = True
                    connection.corks += 1
            # The connection itself looks at control frames, and at all frames while a ping waits for its reply.
            if not (frame.msg_type & 8 or connection.awaits_pong) or is_for_listener(connection, frame):
                if callback is None:
                    listener.on_ws_frame(transport, frame)
                else:
                    callback(transport, frame)
            if not PICOWS_EXACT_REFCOUNTS or Py_REFCNT(frame) > 1:
                # Somebody may have kept it: it says so when it is used, and the next one is a new object.
                empty_frame(frame)
                frame = WSFrame.__new__(WSFrame)
    finally:
        empty_frame(frame)
        if Py_REFCNT(frame) == 1 and memory.frame is None:
            memory.frame = frame
    return 0


cdef int start_messages(Connection connection, agreement) except -1:
    """From now on the listener sees whole messages."""
    inflater = None
    if agreement is not None:
        inflater = agreement.inflater(connection.is_client)
        connection.deflater = agreement.deflater(connection.is_client)
    connection.messages = MessageAssembler(connection.options.max_message_size, inflater)
    limit_next_frame(connection)
    return 0


cdef inline void limit_next_frame(Connection connection) noexcept:
    # Before memory is taken for it.
    reader_limit(&connection.reader, min(connection.options.max_frame_size, <uint64_t>connection.messages.room()))


cdef int next_message(Connection connection, WSFrame frame) except -1:
    """Take the frame that was read; whether `frame` is now something for the listener."""
    cdef:
        MessageAssembler messages = connection.messages
        MessageStatus status
        bint was_limited = messages.fragments != 0
    if connection.reader.frame.opcode & 8:
        status = messages.check_control(&connection.reader.frame)
        if status == MESSAGE_MORE:
            fill_frame(frame, &connection.reader, connection.buffer)
            return True
    else:
        try:
            status = messages.feed(&connection.reader.frame)
        except WSProtocolError as error:
            peer_failed(connection, error.code, str(error).encode())
            return False
        if status == MESSAGE_READY:
            fill_message(frame, &connection.reader, connection.buffer, messages)
            if was_limited:
                limit_next_frame(connection)
            return True
        if status == MESSAGE_MORE:
            limit_next_frame(connection)
            return False
    peer_failed(connection, message_status_close_code(status), message_status_sentence(status))
    return False


cdef inline bint is_compiled(WSListener listener) noexcept:
    cdef PyTypeObject* listener_type = Py_TYPE(listener)
    return listener_type.tp_dictoffset == 0 and not listener_type.tp_flags & Py_TPFLAGS_HEAPTYPE


cdef int settle(Connection connection, ReadBuffer buffer) except -1:
    """After a burst: keep the bytes of an incomplete frame, return the block they came in."""
    cdef:
        Reader* reader = &connection.reader
        size_t unread = reader_unread(reader)
        size_t needed
        ReadBuffer own
    if unread == 0 or connection.state != STATE_OPEN or connection.close_received:
        if not buffer.is_shared and reader.end < reader.capacity:
            connection.large_frame = 0
        reader.data = NULL
        reader.capacity = reader.start = reader.end = 0
        connection.buffer = None
        give_back(connection.memory, buffer, connection.loop)
        return 0
    needed = reader_needed(reader)
    if not buffer.is_shared and reader.start == 0 and needed <= reader.capacity and reader.end < reader.capacity:
        return 0    # a large frame on its way to its own place
    # A large frame is read straight to a block of its size. A small one, or one whose size is not known yet, waits in a
    # block of what there is and goes to the front of the shared block with the next read: one more small copy, but the
    # read is a whole burst again. (Whole frames wait too where a callback has stopped the loop.)
    if needed > <size_t>connection.options.small_frame_limit and needed > unread:
        own = take_large_buffer(connection.memory, <Py_ssize_t>needed)
        reader_attach(reader, own.data, needed)
        connection.large_frame = <Py_ssize_t>needed if SHARED_READ_SIZE // 4 < needed <= MAX_SPARE_SIZE else 0
    else:
        own = ReadBuffer(<Py_ssize_t>unread)
        reader_attach(reader, own.data, unread)
        connection.large_frame = 0
    connection.buffer = own
    give_back(connection.memory, buffer, connection.loop)
    return 0


cdef int is_for_listener(Connection connection, WSFrame frame) except -1:
    """What the connection itself does with a frame; whether the listener sees it then."""
    if frame.msg_type == WSMsgType.PONG and take_numbered_pong(connection, frame):
        return False
    if connection.awaits_pong and connection.listener.is_user_specific_pong(frame):
        if not connection.awaits_numbered:
            pong_received(connection)
            return False
        # Not what is measured, but a sign of life. The listener sees it as any PONG that nobody waits for.
        end_ping(connection)
    if connection.state != STATE_OPEN:
        return False    # the listener has just disconnected
    if frame.msg_type == WSMsgType.PING and connection.options.enable_auto_pong:
        if connection.writing_paused:
            # A peer that sends pings and does not read: the answer to the last one is enough (RFC 6455 5.5.3).
            connection.pending_pong = frame.get_payload_as_bytes()
        elif can_send(connection):
            send_frame(connection, FIN_BIT | WSMsgType.PONG, <const uint8_t*>frame.payload_ptr, frame.payload_size)
            tell_flow(connection)
        return False
    if frame.msg_type == WSMsgType.CLOSE:
        note_received_close(connection, frame)
    return True


cdef int note_received_close(Connection connection, WSFrame frame) except -1:
    cdef WSTransport transport = connection.transport
    connection.close_received = True
    if connection.state == STATE_OPEN:
        # Nothing that comes behind it is looked at (RFC 6455 5.5.1): no reply to a ping either.
        cancel_timer(connection)
        wake_pong_waiter(connection)
    cdef WSCloseInfo sent = transport.close_handshake.sent if transport.close_handshake is not None else None
    received = WSCloseInfo(named_close_code(frame.get_close_code()), frame.get_close_reason())
    transport.close_handshake = WSCloseHandshake(sent, received, sent is None)
    return 0


cdef inline void let_go(Connection connection) noexcept:
    # Nothing keeps a finished connection alive.
    connection.listener = None
    connection.transport = None


cdef inline bint awaits_rest(Connection connection) noexcept:
    """Whether part of a frame or of a message has come."""
    return connection.state == STATE_OPEN and not connection.close_received and (
        reader_unread(&connection.reader) != 0
        or (connection.messages is not None and connection.messages.fragments != 0))


cdef inline void cancel_stall_timer(Connection connection):
    if connection.stall_timer is not None:
        connection.stall_timer.cancel()
        connection.stall_timer = None


cdef inline void cancel_timer(Connection connection):
    if connection.timer is not None:
        connection.timer.cancel()
        connection.timer = None


cdef inline bint awaits_upgrade(Connection connection):
    return connection.upgrade_waiter is not None and not connection.upgrade_waiter.done()


cdef void set_exception(object waiter, object error):
    if not waiter.done():
        waiter.set_exception(error)
        # Whoever gave up waiting is not told by the garbage collector.
        waiter.exception()


cdef object raisable(str name, error):
    """What a callback raised, as something that a coroutine of ours may raise in its user.

    A CancelledError would look as if the waiter had been cancelled, and a StopIteration cannot leave a coroutine.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    raised = RuntimeError(f"{name} raised {type(error).__name__}")
    raised.__cause__ = error
    return raised


cdef object failed_factory_result():
    return WSUpgradeResponseWithListener(
        WSUpgradeResponse.create_error_response(500, b"Internal Server Error"), None)


cdef bint overrides(WSListener listener, str name) except -1:
    """Whether a method is another one than WSListener's: of a class, in Python or Cython, or set on the instance."""
    return getattr(listener, name) != getattr(WSListener, name).__get__(listener)
