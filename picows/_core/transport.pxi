# WSTransport: what a user sends through, and the way of a frame to the socket.

@cython.final
cdef class WSCloseInfo:
    """What a CLOSE frame said (RFC 6455 5.5.1).

    :param code: the close code, `WSCloseCode.NO_INFO` when there was none; a plain `int` when it has no name
    :param reason: the reason as `str`, None when there was none
    """

    def __init__(self, code, reason):
        self.code = code
        self.reason = reason

    def __eq__(self, other):
        if not isinstance(other, WSCloseInfo):
            return NotImplemented
        return (self.code, self.reason) == ((<WSCloseInfo>other).code, (<WSCloseInfo>other).reason)

    def __hash__(self):
        return hash((self.code, self.reason))

    def __repr__(self):
        return f"WSCloseInfo(code={self.code!r}, reason={self.reason!r})"


@cython.final
cdef class WSCloseHandshake:
    """How far the closing handshake of a connection has come (RFC 6455 7.1).

    :param sent: what our CLOSE frame said, None while none was sent
    :param recv: what the peer's CLOSE frame said, None while none was received
    :param recv_then_sent: whether the peer began
    """

    def __init__(self, WSCloseInfo sent, WSCloseInfo recv, bint recv_then_sent):
        self.sent = sent
        self.recv = recv
        self.recv_then_sent = recv_then_sent

    def __repr__(self):
        return (f"WSCloseHandshake(sent={self.sent!r}, recv={self.recv!r}, "
                f"recv_then_sent={bool(self.recv_then_sent)})")


cdef class WSTransport:
    """One connection: sends frames and ends the connection.

    Made by `ws_connect` and by the server; belongs to the thread of its event loop, and every method called from
    another thread raises `RuntimeError`. Sending never blocks and never waits: what the kernel does not take at once
    is queued, see `WSListener.pause_writing`.

    After :meth:`send_close`, after :meth:`disconnect` and after the end of the connection every send does nothing.
    """

    def __init__(self):
        raise TypeError("a WSTransport is made by ws_connect and ws_create_server only")

    cpdef send(self, WSMsgType msg_type, message, bint fin=True, bint rsv1=False, bint rsv2=False, bint rsv3=False,
               compress=None):
        cdef:
            Connection connection = checked_connection(self, "send")
            int taken
        check_data_or_ping(msg_type)
        if connection.deflater is not None and not msg_type & 8:
            taken = send_deflated(connection, first_byte(msg_type, fin, rsv1, rsv2, rsv3), message, compress)
        else:
            taken = send_message(connection, first_byte(msg_type, fin, rsv1, rsv2, rsv3), message)
        tell_flow(connection)
        return True if taken else False

    cpdef send_reuse_external_bytearray(self, WSMsgType msg_type, bytearray buffer, Py_ssize_t msg_offset,
                                        bint fin=True, bint rsv1=False, bint rsv2=False, bint rsv3=False):
        cdef Connection connection = checked_connection(self, "send_reuse_external_bytearray")
        check_data_or_ping(msg_type)
        if buffer is None:
            raise ValueError("buffer is None, expected a bytearray")
        cdef:
            Py_buffer view
            int taken
        # While it is exported nobody can resize it.
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            if msg_offset < MAX_HEADER_SIZE or msg_offset > view.len:
                raise ValueError(
                    f"msg_offset is {msg_offset}, expected {MAX_HEADER_SIZE} (room for the header) to {view.len} "
                    "(the size of buffer)")
            taken = send_in_place(connection, first_byte(msg_type, fin, rsv1, rsv2, rsv3),
                                  <uint8_t*>view.buf + msg_offset, view.len - msg_offset)
        finally:
            PyBuffer_Release(&view)
        tell_flow(connection)
        return True if taken else False

    cdef int send_reuse_external_buffer(self, WSMsgType msg_type, char* msg_ptr, Py_ssize_t msg_size, bint fin=True,
                                        bint rsv1=False, bint rsv2=False, bint rsv3=False) except -1:
        cdef Connection connection = checked_connection(self, "send_reuse_external_buffer")
        check_data_or_ping(msg_type)
        if msg_size < 0 or msg_ptr == NULL:
            raise ValueError(f"msg_ptr and msg_size have to name a message of 0 or more bytes, msg_size is {msg_size}")
        cdef int taken = send_in_place(
            connection, first_byte(msg_type, fin, rsv1, rsv2, rsv3), <uint8_t*>msg_ptr, msg_size)
        tell_flow(connection)
        return taken

    cpdef send_ping(self, message=None):
        """Send a PING frame (RFC 6455 5.5.2).

        :param message: up to 125 bytes, as for :meth:`send`
        :raises ValueError: when it is longer; nothing is sent
        """
        cdef Connection connection = checked_connection(self, "send_ping")
        send_message(connection, FIN_BIT | WSMsgType.PING, message)
        tell_flow(connection)

    cpdef send_pong(self, message=None):
        """Send a PONG frame (RFC 6455 5.5.3).

        :param message: up to 125 bytes, as for :meth:`send`
        :raises ValueError: when it is longer; nothing is sent
        """
        cdef Connection connection = checked_connection(self, "send_pong")
        send_message(connection, FIN_BIT | WSMsgType.PONG, message)
        tell_flow(connection)

    cpdef send_close(self, close_code=0, close_message=None):
        """Send a CLOSE frame (RFC 6455 5.5.1). The first one counts; every send after it does nothing.

        :param close_code: `WSCloseCode.NO_INFO` for a CLOSE without a code; 3000 to 4999 are free for applications
        :param close_message: a reason of up to 123 bytes of UTF-8, as `str` or bytes
        :raises ValueError: when the code may not travel (RFC 6455 7.4), the reason is too long, not UTF-8, or given
            without a code; nothing is sent
        """
        cdef Connection connection = checked_connection(self, "send_close")
        if not isinstance(close_code, int):
            raise TypeError(f"close_code is of type {type(close_code).__name__}, expected a WSCloseCode or an int")
        reason = close_reason_bytes(close_code, close_message)
        send_close_frame(connection, close_code, reason)
        tell_flow(connection)

    cpdef disconnect(self, bint graceful=True):
        """End the connection. Does nothing when it is ending already, but an abort still cuts a graceful end short.

        :param graceful: whether what was sent before still goes out, to a peer that still sends to us as well: our side
            is closed for writing, and what arrives is dropped until the peer closes too, within a bounded time. False
            closes the socket at once and drops what was queued.
        """
        cdef Connection connection = checked_connection(self, "disconnect")
        disconnect(connection, graceful)
        tell_flow(connection)

    cpdef notify_user_specific_pong_received(self):
        """Tell that a reply to the last ping has come, when only :meth:`WSListener.on_ws_frame` can know it."""
        pong_received(checked_connection(self, "notify_user_specific_pong_received"))

    cpdef flush(self):
        """Write what was gathered: what was sent during the burst that is being delivered, or since :meth:`cork`.

        Call it where something sent must not wait for the rest of the burst: before work that takes long, for example.
        """
        cdef Connection connection = checked_connection(self, "flush")
        flush(connection)
        tell_flow(connection)

    def cork(self):
        """Gather what is sent inside of a ``with`` block, and write it at once: ``with transport.cork(): ...``.

        It leaves when the block ends, by an exception too, when 64 KiB wait, and at :meth:`flush`. Corks nest: the
        outermost one writes. Inside of a burst the end of the burst writes.
        """
        checked_connection(self, "cork")
        return Cork(self)

    @property
    def write_buffer_size(self):
        """How many bytes the kernel has not taken yet: what was gathered, and what the asyncio transports hold.

        Over TLS it counts encrypted bytes, as far as they are encrypted.
        """
        cdef Connection connection = checked_connection(self, "write_buffer_size")
        if connection.state == STATE_CLOSED:
            return 0
        return queued(connection) + (connection.gathered.size if connection.gathered is not None else 0)

    @cython.binding(True)
    async def close(self, code=WSCloseCode.OK, reason=None, timeout=10):
        """Close the connection as the protocol wants it (RFC 6455 7.1.2): both sides say CLOSE, then the server ends TCP.

        Sends a CLOSE, unless one was sent before, goes on delivering frames until the peer's CLOSE has come, and returns
        when the connection has ended. What was sent before reaches a peer that reads. When the time is over, or this is
        cancelled, the connection is aborted.

        It does not raise what :meth:`wait_disconnected` raises.

        :param code: as for :meth:`send_close`
        :param reason: as `close_message` for :meth:`send_close`
        :param timeout: how many seconds all of it may take, None: no limit
        :raises ValueError: as :meth:`send_close`, and for a `timeout` that is not positive; nothing is sent
        """
        cdef Connection connection = checked_connection(checked_self(self, "close"), "close")
        if timeout is not None:
            check_seconds("timeout", timeout)
        self.send_close(code, reason)
        close_when_answered(connection)
        tell_flow(connection)
        try:
            await asyncio.wait_for(wait_closed(connection), timeout)
        except asyncio.TimeoutError:
            # The loop may have been held up, and the answer lie in the kernel: see OneMoreTurn.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        finally:
            disconnect(connection, False)
        await wait_closed(connection)

    @cython.binding(True)
    async def wait_disconnected(self):
        """Wait until the connection has ended and :meth:`WSListener.on_ws_disconnected` has run.

        Cancelling it does not disturb the connection.

        :raises Exception: on the client side, the first exception of a callback, or the `WSProtocolError` that made us
            disconnect; never for what the peer chose to do
        """
        cdef Connection connection = checked_connection(checked_self(self, "wait_disconnected"), "wait_disconnected")
        await wait_closed(connection)
        if self._failure is not None:
            error, its_traceback = self._failure
            raise error.with_traceback(its_traceback)

    @cython.binding(True)
    async def measure_roundtrip_time(self, rounds):
        """Send pings one after another and measure how long each reply takes (RFC 6455 5.5.2, 5.5.3).

        Waits for an auto ping that is under way, and holds auto ping back meanwhile.

        Each ping carries 8 bytes of its own, and only the PONG with the same bytes is its reply: a late one, to a ping whose
        measuring was cancelled, is dropped, and any other PONG goes to the listener. A listener that overrides
        :meth:`WSListener.send_user_specific_ping` or :meth:`WSListener.is_user_specific_pong` decides itself.

        :param rounds: how many pings
        :returns: a list of `rounds` times in seconds
        :raises ConnectionResetError: when the connection ends meanwhile, or a CLOSE was sent or received
        :raises ValueError: when `rounds` is negative
        """
        cdef Connection connection = checked_connection(checked_self(self, "measure_roundtrip_time"), "measure_roundtrip_time")
        check_int("rounds", rounds, 0)
        return await measure_roundtrip_time(connection, rounds)


# What Python calls in place of the wrappers that Cython makes of the cpdef methods: those take a float for a C enum, and
# their errors name C types instead of arguments. The methods below are moved into WSTransport, so their `self` is one.
cdef class CheckedSend:

    def send(self, msg_type, message, bint fin=True, bint rsv1=False, bint rsv2=False, bint rsv3=False, compress=None):
        """Send one frame (RFC 6455 5.2).

        :param msg_type: CONTINUATION, TEXT, BINARY, PING or PONG; a CLOSE is sent by :meth:`send_close`
        :param message: the payload: a `str` is sent as UTF-8, None is empty, else any C-contiguous buffer (bytes,
            bytearray, memoryview, a `WSFrame`, ...). It is sent or copied before the call returns.
        :param fin: whether this is the last frame of its message
        :param rsv1: the first reserved bit, for an extension; likewise `rsv2` and `rsv3`
        :param compress: where compression was agreed on, whether to compress this message: None: if it has `min_size`
            bytes, or begins with this fragment. The first fragment decides for a message.
        :returns: whether it was taken: False when the connection cannot send any more, and when it was dropped because
            of a slow peer (`WSSlowPeerPolicy`)
        :raises TypeError: for a message of another type
        :raises ValueError: for CLOSE, for a reserved type, for a control frame over 125 bytes or with ``fin=False``
        :raises WSSlowPeerError: with `WSSlowPeerPolicy.RAISE`
        """
        return WSTransport.send(
            <WSTransport><object>self, <WSMsgType>checked_msg_type(msg_type), message, fin, rsv1, rsv2, rsv3, compress)

    def send_reuse_external_bytearray(self, msg_type, bytearray buffer, msg_offset,
                                      bint fin=True, bint rsv1=False, bint rsv2=False, bint rsv3=False):
        """Send the end of a bytearray as one frame, without a copy: the header is built inside of it.

        The up to 14 bytes in front of the message are overwritten; on the client side the message is masked in place.

        :param msg_type: as for :meth:`send`
        :param buffer: holds at least 14 free bytes, then the message to its end
        :param msg_offset: where the message begins, in bytes, 14 or more
        :returns: as :meth:`send`
        :raises ValueError: when `buffer` is None or `msg_offset` is below 14 or past the end
        """
        cdef int opcode = checked_msg_type(msg_type)
        check_int("msg_offset", msg_offset, 0)
        return WSTransport.send_reuse_external_bytearray(
            <WSTransport><object>self, <WSMsgType>opcode, buffer, msg_offset, fin, rsv1, rsv2, rsv3)


cdef int move_checked_methods() except -1:
    cdef PyTypeObject* transport_type = <PyTypeObject*>WSTransport
    cdef PyTypeObject* checked_type = <PyTypeObject*>CheckedSend
    attributes = <object>transport_type.tp_dict
    for name in ("send", "send_reuse_external_bytearray"):
        method = (<object>checked_type.tp_dict).pop(name)
        attributes[name] = PyDescr_NewMethod(transport_type, (<PyMethodDescrObject*>method).d_method)
    PyType_Modified(transport_type)
    PyType_Modified(checked_type)
    return 0


move_checked_methods()


cdef inline int checked_msg_type(object msg_type) except -1:
    """The value of a WSMsgType or of an integer, 0 to 15: it may be a reserved one."""
    cdef int value = small_int(msg_type) if isinstance(msg_type, int) else 16
    return value if value <= 15 else index_of_msg_type(msg_type)


cdef int index_of_msg_type(object msg_type) except -1:
    try:
        value = operator.index(msg_type)
    except TypeError:
        raise TypeError(f"msg_type is {msg_type!r}, expected a WSMsgType") from None
    if not 0 <= value <= 15:
        raise ValueError(f"msg_type is {msg_type!r}, expected one of WSMsgType")
    return value


cdef inline WSTransport checked_self(object self, str method):
    # Coroutine methods stay Cython functions, which tell that they are coroutine functions but check no `self`.
    if not isinstance(self, WSTransport):
        raise TypeError(f"WSTransport.{method} was called on a {type(self).__name__}")
    return <WSTransport>self


@cython.final
cdef class Cork:
    """The block of a ``with transport.cork()``."""
    cdef:
        WSTransport transport
        int entered

    def __cinit__(self, WSTransport transport not None):
        self.transport = transport

    def __enter__(self):
        cdef Connection connection = checked_connection(self.transport, "cork")
        connection.corks += 1
        self.entered += 1

    def __exit__(self, *_):
        cdef Connection connection = checked_connection(self.transport, "cork")
        if self.entered == 0:
            raise RuntimeError("cork() was left without being entered")
        self.entered -= 1
        uncork(connection)
        tell_flow(connection)


cdef inline Connection checked_connection(WSTransport transport, str method):
    if transport._connection is None:
        raise RuntimeError(f"WSTransport.{method} was called on a transport without a connection")
    cdef Connection connection = <Connection>transport._connection
    if PyThread_get_thread_ident() != connection.thread_id:
        raise RuntimeError(
            f"WSTransport.{method} was called from thread {PyThread_get_thread_ident()}, "
            f"but the connection belongs to thread {connection.thread_id}")
    return connection


cdef inline int check_data_or_ping(WSMsgType msg_type) except -1:
    # CONTINUATION, TEXT, BINARY, PING, PONG
    if <unsigned int>msg_type > 15 or not (1 << <unsigned int>msg_type) & 0b0000011000000111:
        if msg_type == WSMsgType.CLOSE:
            raise ValueError("msg_type is CLOSE, which is sent by send_close")
        raise ValueError(f"msg_type is {<int>msg_type}, expected one of WSMsgType")
    return 0


cdef inline bint can_send(Connection connection) noexcept:
    return connection.state == STATE_OPEN and not connection.transport.is_close_frame_sent


cdef inline int may_queue(Connection connection, uint8_t first, Py_ssize_t size) except -1:
    """Whether a frame may wait behind what the peer has not taken; otherwise the policy for slow peers was followed."""
    # Asked only while something waits. What goes to a peer that reads costs one branch, control frames always pass.
    if not connection.transport_queued or connection.options.max_write_buffer_size == 0 or first & OPCODE_CONTROL_BIT:
        return True
    return fits_write_buffer(connection, size)


cdef int send_message(Connection connection, uint8_t first, object message) except -1:
    """Send a frame whose first byte is `first`; whether it was taken."""
    cdef Py_buffer view
    if not can_send(connection):
        return 0
    if not (connection.direct or connection.is_client or first & OPCODE_CONTROL_BIT) and has_lasting_payload(message):
        return send_uncopied(connection, first, message)
    if PyBytes_CheckExact(message):
        return send_frame(connection, first, <const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
    get_message(message, &view)
    try:
        # To give its buffer a message may have run code of its own.
        if not can_send(connection):
            return False
        return send_frame(connection, first, <const uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef bint has_lasting_payload(object message) except -1:
    """Whether the payload is large, and stays what it is for as long as somebody refers to it."""
    cdef Py_buffer* view
    if PyBytes_CheckExact(message):
        return PyBytes_GET_SIZE(message) > COPY_LIMIT
    if type(message) is WSFrame:
        return (<WSFrame>message).payload_size > COPY_LIMIT and (<WSFrame>message)._buffer is not None
    if not PyMemoryView_Check(message):
        return False
    view = PyMemoryView_GET_BUFFER(message)
    if view.len <= COPY_LIMIT or not view.readonly or not PyBuffer_IsContiguous(view, c"C"):
        return False
    try:
        owner = message.obj
    except ValueError:
        return False    # it was released: get_message() says so
    return type(owner) is bytes or type(owner) is ReadBuffer


cdef int send_uncopied(Connection connection, uint8_t first, object message) except -1:
    """Give the transport header and payload; it may keep them, so this is for what has_lasting_payload()."""
    cdef:
        uint8_t[MAX_HEADER_SIZE] header
        # A view of our own: the caller may release the one that was given.
        object payload = message if PyBytes_CheckExact(message) else PyMemoryView_FromObject(message)
        Py_ssize_t size = memoryview(payload).nbytes
        size_t head = write_header(header, first, size, False, 0)
    if not may_queue(connection, first, size):
        return False
    flush(connection)
    cdef bint in_write = connection.in_write
    connection.transport_queued = connection.in_write = True
    try:
        connection.transport.underlying_transport.writelines([PyBytes_FromStringAndSize(<char*>header, head), payload])
    finally:
        connection.in_write = in_write
    if connection.debug:
        log_sent_frame(connection, first, size)
    return True


cdef int get_message(object message, Py_buffer* view) except -1:
    """The bytes of a message, for as long as the caller holds it and until PyBuffer_Release."""
    memset(view, 0, sizeof(Py_buffer))
    if message is None:
        return 0
    if isinstance(message, str):
        view.buf = <void*>PyUnicode_AsUTF8AndSize(message, &view.len)
        return 0
    try:
        PyObject_GetBuffer(message, view, PyBUF_SIMPLE)
    except (BufferError, ValueError) as error:
        # NumPy says ValueError of an array that is not contiguous, and so does a memoryview that was released.
        raise TypeError(
            f"message, a {type(message).__name__}, cannot be read as a C-contiguous buffer: {error}") from None
    except TypeError:
        raise TypeError(
            f"message is of type {type(message).__name__}, expected str, None or a C-contiguous buffer") from None
    return 0


cdef inline int check_control(uint8_t first, Py_ssize_t size) except -1:
    if first & OPCODE_CONTROL_BIT:
        if size > MAX_CONTROL_PAYLOAD:
            raise ValueError(
                f"the message of a control frame has {size} bytes, expected {MAX_CONTROL_PAYLOAD} at most (RFC 6455 5.5)")
        if not first & FIN_BIT:
            raise ValueError("fin is False, but a control frame may not be fragmented (RFC 6455 5.5)")
    return 0


cdef inline int send_frame(Connection connection, uint8_t first, const uint8_t* payload, Py_ssize_t size) except -1:
    """Build one frame and write it, unless the peer is too slow; `payload` is read before this returns."""
    check_control(first, size)
    if not may_queue(connection, first, size):
        return False
    write_frame(connection, first, payload, size)
    return True


cdef int write_frame(Connection connection, uint8_t first, const uint8_t* payload, Py_ssize_t size) except -1:
    cdef:
        bint masked = connection.is_client
        uint32_t key = next_mask(connection.memory) if masked else 0
        uint8_t* out = room_to_gather(connection, header_size(size, masked) + size) if connection.corks else NULL
    if out != NULL:
        build_frame(out, first, payload, size, masked, key)
    else:
        write_alone(connection, first, payload, size, masked, key)
    if connection.debug:
        log_sent_frame(connection, first, size)
    return 0


cdef int write_alone(Connection connection, uint8_t first, const uint8_t* payload, Py_ssize_t size, bint masked,
                     uint32_t key) except -1:
    cdef:
        uint8_t* scratch = connection.memory.scratch
        uint8_t[MAX_HEADER_SIZE] header
        size_t head
        Py_ssize_t done, chunk, sent
        bytes frame
    if not goes_direct(connection):
        # The transport may keep what it is given: it gets bytes of its own, built in one pass.
        frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>header_size(size, masked) + size)
        build_frame(<uint8_t*>PyBytes_AS_STRING(frame), first, payload, size, masked, key)
        return write_to_transport(connection, frame)
    if size <= SCRATCH_SIZE and (masked or size <= COPY_LIMIT):
        head = build_frame(scratch, first, payload, size, masked, key)
        return write_bytes(connection, scratch, <Py_ssize_t>head + size)
    head = write_header(header, first, size, masked, key)
    if not masked:
        # Large and unmasked: the kernel takes header and payload from where they lie.
        sent = ws_send2(connection.fd, header, head, payload, size)
        if sent < <Py_ssize_t>head + size:
            return queue_rest(connection, header, head, payload, size, sent, 0, 0)
        return 0
    # Larger than the scratch memory, and masked: chunk by chunk.
    memcpy(scratch, header, head)
    done = 0
    while True:
        chunk = min(size - done, <Py_ssize_t>SCRATCH_SIZE)
        mask_copy(scratch + head, payload + done, chunk, key)
        sent = ws_send(connection.fd, scratch, head + chunk)
        done += chunk
        if sent < <Py_ssize_t>head + chunk or done == size:
            break
        head = 0
    if sent < <Py_ssize_t>head + chunk:
        return queue_rest(connection, scratch, head + chunk, payload + done, size - done, sent, masked, key)
    return 0


cdef inline size_t build_frame(uint8_t* out, uint8_t first, const uint8_t* payload, Py_ssize_t size, bint masked,
                               uint32_t key) noexcept:
    """Write header and payload; returns the size of the header."""
    cdef size_t head = write_header(out, first, size, masked, key)
    if masked:
        mask_copy(out + head, payload, size, key)
    elif size:
        memcpy(out + head, payload, size)
    return head


cdef int send_in_place(Connection connection, uint8_t first, uint8_t* payload, Py_ssize_t size) except -1:
    """Send a payload that has 14 free bytes in front of it and may be masked where it lies."""
    cdef:
        bint masked = connection.is_client
        uint32_t key
        uint8_t* out
        size_t head
    if not can_send(connection):
        return 0
    check_control(first, size)
    if connection.deflater is not None and not first & OPCODE_CONTROL_BIT:
        check_not_deflated(connection, first)
    if not may_queue(connection, first, size):
        return False
    key = next_mask(connection.memory) if masked else 0
    head = header_size(size, masked)
    write_header(payload - head, first, size, masked, key)
    if masked:
        mask_copy(payload, payload, size, key)
    out = room_to_gather(connection, head + size) if connection.corks else NULL
    if out != NULL:
        memcpy(out, payload - head, head + size)
    else:
        write_bytes(connection, payload - head, <Py_ssize_t>head + size)
    if connection.debug:
        log_sent_frame(connection, first, size)
    return True


cdef int log_sent_frame(Connection connection, uint8_t first, Py_ssize_t size) except -1:
    # Called when the frame is on its way and all is in order: a handler of the log may do anything, send too.
    connection.options.logger.log(
        PICOWS_DEBUG_LL, "sent %s, fin=%s, payload_sz=%d", msg_types[first & 0x0F].name, first & FIN_BIT != 0, size)
    return 0


cdef inline uint8_t* room_to_gather(Connection connection, size_t size) except? NULL:
    """Where the next `size` bytes wait; NULL when they are to leave by themselves, behind what was gathered."""
    cdef uint8_t* out
    if connection.gathered is None or connection.gathered.size + size > GATHER_SIZE:
        while connection.gathered is not None and connection.gathered.size + size > GATHER_SIZE:
            flush(connection)
        if size > GATHER_SIZE:
            return NULL
        take_write_buffer(connection)
    out = connection.gathered.data + connection.gathered.size
    connection.gathered.size += size
    return out


cdef int take_write_buffer(Connection connection) except -1:
    """The thread has one. A connection that gathers while another one does gets a buffer of its own."""
    cdef ThreadMemory memory = connection.memory
    if connection.gathered is None:
        connection.gathered = WriteBuffer() if memory.write_buffer is None else memory.write_buffer
        memory.write_buffer = None
    return 0


cdef int flush(Connection connection) except -1:
    """Write what was gathered."""
    cdef WriteBuffer full = connection.gathered
    if full is None:
        return 0
    # It is out of reach while it is written: what is sent meanwhile waits in another one, behind it.
    connection.gathered = None
    try:
        # An abort has dropped what was queued before it, so this would leave a gap.
        if connection.state < STATE_CLOSING:
            write_bytes(connection, full.data, full.size)
    finally:
        full.size = 0
        if connection.memory.write_buffer is None:
            connection.memory.write_buffer = full
    return 0


cdef int uncork(Connection connection) except -1:
    connection.corks -= 1
    return flush(connection) if connection.corks == 0 else 0


cdef inline bint goes_direct(Connection connection) except -1:
    """Whether the socket itself may be written to: it is plain, and the transport has nothing queued before us."""
    if not connection.direct:
        return False
    if connection.transport_queued:
        # Asked for only until the queue has run empty: it is a Python call.
        if connection.transport.underlying_transport.get_write_buffer_size() > 0:
            return False
        connection.transport_queued = False
    return True


cdef int write_bytes(Connection connection, const uint8_t* data, Py_ssize_t size) except -1:
    """Write `data` behind all that was written before; it is sent or copied when this returns."""
    cdef Py_ssize_t sent = 0
    if goes_direct(connection):
        sent = ws_send(connection.fd, data, size)
        if sent == size:
            return 0
    return write_to_transport(connection, PyBytes_FromStringAndSize(<const char*>data + sent, size - sent))


cdef int write_head(Connection connection, bytes head) except -1:
    """Write one half of the opening handshake."""
    return write_bytes(connection, <const uint8_t*>PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))


cdef int queue_rest(Connection connection, const uint8_t* first, Py_ssize_t first_size, const uint8_t* second,
                    Py_ssize_t second_size, Py_ssize_t sent, bint masked, uint32_t key) except -1:
    """Hand the transport what the kernel did not take of two parts; of the second one it took nothing while `masked`."""
    cdef:
        bytes rest = PyBytes_FromStringAndSize(NULL, first_size + second_size - sent)
        uint8_t* out = <uint8_t*>PyBytes_AS_STRING(rest)
    if sent < first_size:
        memcpy(out, first + sent, first_size - sent)
        out += first_size - sent
        sent = first_size
    sent -= first_size
    if masked:
        # SCRATCH_SIZE is a multiple of 4: each chunk begins with the first byte of the key.
        mask_copy(out, second, second_size, key)
    else:
        memcpy(out, second + sent, second_size - sent)
    return write_to_transport(connection, rest)


cdef inline int write_to_transport(Connection connection, bytes data) except -1:
    cdef bint in_write = connection.in_write
    connection.transport_queued = connection.in_write = True
    try:
        connection.transport.underlying_transport.write(data)
    finally:
        connection.in_write = in_write
    return 0


cdef bytes close_reason_bytes(object code, object message):
    """The reason of a CLOSE frame to be sent, checked together with its code."""
    cdef bytes reason
    if message is None:
        reason = b""
    elif isinstance(message, str):
        reason = (<str>message).encode()
    else:
        try:
            reason = bytes(memoryview(message))
        except TypeError:
            raise TypeError(
                f"close_message is of type {type(message).__name__}, expected str, None or a buffer") from None
        except (BufferError, ValueError) as error:
            raise TypeError(f"close_message, a {type(message).__name__}, cannot be read as a buffer: {error}") from None
        try:
            reason.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"close_message is not UTF-8 (RFC 6455 5.5.1): {error}") from None
    if code == WSCloseCode.NO_INFO:
        if reason:
            raise ValueError("close_message was given without a close_code: NO_INFO sends an empty CLOSE")
    elif not 0 <= code <= 0xFFFF or not close_code_may_travel(code):
        raise ValueError(
            f"close_code is {code}, which may not travel: expected 1000 to 1003, 1007 to 1014 or 3000 to 4999 (RFC 6455 7.4)")
    if len(reason) > MAX_CONTROL_PAYLOAD - 2:
        raise ValueError(
            f"close_message has {len(reason)} bytes, expected {MAX_CONTROL_PAYLOAD - 2} at most (RFC 6455 5.5)")
    return reason


cdef int send_close_frame(Connection connection, int code, bytes reason) except -1:
    cdef:
        uint8_t[MAX_CONTROL_PAYLOAD] payload
        size_t size = 0
        WSTransport transport = connection.transport
    if not can_send(connection):
        return 0
    if code != WSCloseCode.NO_INFO:
        size = write_close_payload(payload, code, <const uint8_t*>PyBytes_AS_STRING(reason), PyBytes_GET_SIZE(reason))
    sent = WSCloseInfo(named_close_code(code), reason.decode() if reason else None)
    received = transport.close_handshake.recv if transport.close_handshake is not None else None
    # Before it is written: nothing follows a CLOSE, whatever happens in the write.
    transport.is_close_frame_sent = True
    transport.close_handshake = WSCloseHandshake(sent, received, received is not None)
    return send_frame(connection, FIN_BIT | OPCODE_CLOSE, payload, size)
