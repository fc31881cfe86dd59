# WSTransport: what a user sends through.

# What `close_code` tells of a CLOSE without a code (RFC 6455 7.4.1).
cdef int NO_STATUS_RECEIVED = 1005


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
        if not is_data_or_ping(msg_type):
            if msg_type != WSMsgType.CLOSE:
                check_data_or_ping(msg_type)
            taken = send_close_payload(connection, first_byte(msg_type, fin, rsv1, rsv2, rsv3), message)
        elif connection.deflater is not None and not msg_type & 8:
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

    def send_latest(self, key, msg_type, message, *, compress=None):
        """Send a message that a newer one of the same key makes worthless, such as the price of one thing.

        To a peer that keeps up it goes out like any other: at once, nothing is left out. While the peer has not taken what was sent
        before, it waits under its key, and a later one of the same key takes its place. Once the peer has taken the rest, all
        that waits goes out together, in the order in which the keys came first. So a slow peer gets the newest value of each key,
        and never an old one after a newer one.

        Between what waits and the frames of :meth:`send` there is no order. :meth:`send_close` and a graceful
        :meth:`disconnect` send it first, an abort drops it. It waits also while a message is being sent in fragments, and
        counts in :attr:`write_buffer_size`, for :meth:`drain`, and for `max_write_buffer_size`, like what is sent.

        :param key: anything hashable
        :param msg_type: TEXT or BINARY; it is a whole message
        :param message: as for :meth:`send`
        :param compress: as for :meth:`send`; what waits is compressed when it goes out
        :returns: as :meth:`send`. When `max_write_buffer_size` has no room for it, what waits under the key stays.
        :raises TypeError: for a key that cannot be hashed, and a message of another type
        :raises ValueError: for another `msg_type`
        :raises WSSlowPeerError: with `WSSlowPeerPolicy.RAISE`
        """
        cdef:
            Connection connection = checked_connection(self, "send_latest")
            uint8_t first = first_of_whole(msg_type)
            int taken
        check_key("key", key)
        check_compress(compress)
        taken = send_latest(connection, key, first, message, compress)
        tell_flow(connection)
        return True if taken else False

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
        reason = checked_close(close_code, close_message)
        send_close_frame(connection, close_code, reason)
        limit_exchange(connection)
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

    @cython.binding(True)
    async def drain(self):
        """Wait for room: while more waits to be sent than is wanted, from the transport's high-water mark to the low one.

        Returns at once when nothing waits. What was gathered (:meth:`cork`) is written first. Any number of tasks may wait. The
        marks are those of :meth:`WSListener.pause_writing`, which is called all the same.

        :raises ConnectionResetError: when the connection has ended, or ends meanwhile, and once a CLOSE was sent: nothing can be
            sent any more
        """
        cdef Connection connection = checked_connection(checked_self(self, "drain"), "drain")
        flush(connection)
        tell_flow(connection)
        await wait_drained(connection)

    def cork(self):
        """Gather what is sent inside of a ``with`` block, and write it at once: ``with transport.cork(): ...``.

        It leaves when the block ends, by an exception too, when 64 KiB wait, and at :meth:`flush`. Corks nest: the
        outermost one writes. Inside of a burst the end of the burst writes.
        """
        checked_connection(self, "cork")
        return Cork(self)

    @property
    def write_buffer_size(self):
        """How many bytes the kernel has not taken yet: what was gathered, what waits under keys (:meth:`send_latest`), and what the
        asyncio transports hold.

        Over TLS it counts encrypted bytes, as far as they are encrypted.
        """
        cdef Connection connection = checked_connection(self, "write_buffer_size")
        if connection.state == STATE_CLOSED:
            return 0
        return queued(connection) + held(connection)

    def stats(self):
        """The figures of this connection, as a :class:`WSStats`: what was sent and received, what waits, what was dropped.

        They can still be asked for when it has ended.
        """
        return connection_stats(checked_connection(self, "stats"))

    @property
    def close_code(self):
        """How the connection ended, as the WebSocket API tells it (RFC 6455 7.1.5): the close code that the peer has sent.

        1005: its CLOSE has no code; 1006: the connection has ended without one. None until its CLOSE has come or the connection
        has ended. What was said in detail, by us too, is in :attr:`close_handshake`.
        """
        cdef WSCloseHandshake shown = shown_handshake(self)
        if shown is not None and shown.recv is not None:
            return shown.recv.code or NO_STATUS_RECEIVED
        return WSCloseCode.ABNORMAL_CLOSURE if self.is_disconnected else None

    @property
    def close_reason(self):
        """The reason in the peer's CLOSE, empty if there is none; None as long as :attr:`close_code` is."""
        cdef WSCloseHandshake shown = shown_handshake(self)
        if shown is not None and shown.recv is not None:
            return shown.recv.reason or ""
        return "" if self.is_disconnected else None

    @property
    def subprotocol(self):
        """The subprotocol that both sides agreed on in the opening handshake (RFC 6455 1.9), None if there is none."""
        response = self.response
        if response is None or response.status != 101:
            return None
        return response.headers.get("Sec-WebSocket-Protocol")

    @property
    def compression(self):
        """The compression that both sides agreed on, as the `WSDeflate` whose windows and context takeover are those in use.

        None if there is none, `ws_connect` or the server having no ``compression``, or the peer not wanting it.
        """
        return None if self._connection is None else agreed_compression(self, <Connection>self._connection)

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
        closing = asyncio.ensure_future(wait_closed(connection))
        try:
            # wait_for() lost a cancellation in the moment of success, before Python 3.12.
            done, _ = await asyncio.wait([closing], timeout=timeout)
            if not done:
                # The loop may have been held up, and the answer lie in the kernel: see OneMoreTurn.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        finally:
            closing.cancel()
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
        return await measure_roundtrip_time(connection, checked_index("rounds", rounds, 0))


# What Python calls in place of the wrappers that Cython makes of the cpdef methods: those take a float for a C enum, and
# their errors name C types instead of arguments. The methods below are moved into WSTransport, so their `self` is one.
cdef class CheckedSend:

    def send(self, msg_type, message, bint fin=True, bint rsv1=False, bint rsv2=False, bint rsv3=False, compress=None):
        """Send one frame (RFC 6455 5.2).

        :param msg_type: CONTINUATION, TEXT, BINARY, PING, PONG; or CLOSE, whose message is the code in two bytes and the reason:
            checked as :meth:`send_close` does, which is easier to call
        :param message: the payload: a `str` is sent as UTF-8, None is empty, else any C-contiguous buffer (bytes,
            bytearray, memoryview, a `WSFrame`, ...). It is sent or copied before the call returns.
        :param fin: whether this is the last frame of its message
        :param rsv1: the first reserved bit, for an extension; likewise `rsv2` and `rsv3`
        :param compress: where compression was agreed on, whether to compress this message: None: if it has `min_size`
            bytes, or begins with this fragment. The first fragment decides for a message.
        :returns: whether it was taken: False when the connection cannot send any more, and when it was dropped because
            of a slow peer (`WSSlowPeerPolicy`)
        :raises TypeError: for a message of another type
        :raises ValueError: for a reserved type, for a control frame over 125 bytes or with ``fin=False``, for a CLOSE that
            :meth:`send_close` would not send
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
        return WSTransport.send_reuse_external_bytearray(
            <WSTransport><object>self, <WSMsgType>opcode, buffer, checked_index("msg_offset", msg_offset, 0), fin, rsv1, rsv2, rsv3)


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


cdef int describe(str name, const char* text) except -1:
    """Give a read-only field, of which Cython makes an attribute, its docstring. The text has to be a literal: nobody owns it."""
    attributes = <object>(<PyTypeObject*>WSTransport).tp_dict
    field = attributes[name]
    (<PyGetSetDescrObject*>field).d_getset.doc = text
    return 0


cdef object get_close_handshake(object transport, void* closure):
    return shown_handshake(<WSTransport>transport)


cdef int let_any_thread_read() except -1:
    """`close_handshake` changes while other threads may read it, the other objects that are attributes do not."""
    attributes = <object>(<PyTypeObject*>WSTransport).tp_dict
    field = attributes["close_handshake"]
    (<PyGetSetDescrObject*>field).d_getset.get = get_close_handshake
    return 0


let_any_thread_read()

describe("underlying_transport",
         b"The asyncio transport below: addresses, socket and TLS object by ``get_extra_info``, buffer limits, pausing of "
         b"reading. Do not write to it and do not set another protocol.")
describe("request", b"The `WSUpgradeRequest` of the opening handshake.")
describe("response", b"The `WSUpgradeResponse` of the opening handshake.")
describe("close_handshake",
         b"How far the closing handshake has come, a `WSCloseHandshake`; None while no CLOSE was sent or received.")
describe("is_client_side", b"Whether this end was made by `ws_connect`.")
describe("is_secure", b"Whether the connection goes over TLS.")
describe("is_close_frame_sent", b"Whether a CLOSE was sent; every further send does nothing.")
describe("is_disconnected", b"Whether the connection has ended.")


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
