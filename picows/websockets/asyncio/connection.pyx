"""The connection as the package `websockets` has it: its names and errors, on the engine that keeps messages and waiters."""

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterable, Iterable, Mapping

cimport cython
from cpython.object cimport PyObject, PyObject_GenericSetAttr

from picows._streams cimport MessageStream
from picows.picows cimport WSFrame, WSMsgType, WSTransport

from .._errors import shown_response
from ..datastructures import Headers
from ..exceptions import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, ProtocolError
from ..frames import Close, CloseCode
from ..http11 import Request, Response
from ..protocol import State

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        pass
    ctypedef struct PyMethodDescrObject:
        PyMethodDef* d_method
    ctypedef struct PyTypeObject:
        PyObject* tp_dict
    PyTypeObject* Py_TYPE(object)
    object PyDescr_NewMethod(PyTypeObject*, PyMethodDef*)
    void PyType_Modified(PyTypeObject*)
    void Py_SET_TYPE(object, PyTypeObject*)
    bint PyUnicode_Check(object)
    bint PyBytes_Check(object)

cdef object CONNECTING = State.CONNECTING
cdef object OPEN = State.OPEN
cdef object CLOSING = State.CLOSING
cdef object CLOSED = State.CLOSED

cdef enum:
    NO_STATUS = 1005
    ABNORMAL_CLOSURE = 1006

# The codes that end an ``async for`` without an error.
cdef tuple OK_CODES = (1000, 1001, NO_STATUS)

# The codes by which the connection itself answers what the peer did wrong.
cdef tuple FAULT_CODES = (1002, 1007, 1009)

# Seconds: what a `close_timeout` of 0 means.
cdef object AT_ONCE = 1e-9

# With how many bytes of messages the socket is not read any more, however few they are.
cdef object QUEUE_BYTES = 1024 * 1024


@cython.final
cdef class Protocol:
    """What the connections of one `connect` or of one server have in common; the first argument of a `create_connection`.

    It stands where `websockets` has its protocol without I/O, and is none.

    :param logger: where the connections log
    """
    cdef readonly object logger

    def __init__(self, logger):
        self.logger = logger


cdef class Connection(MessageStream):
    """What connections of clients and servers have in common.

    Messages arrive whole, so :meth:`recv_streaming` yields each of them in one piece.

    The arguments are those of `connect`, which says what they mean.
    """

    def __init__(self, protocol, *, ping_interval=20, ping_timeout=20, close_timeout=10, max_queue=16, write_limit=32768):
        high, low = max_queue if isinstance(max_queue, tuple) else (max_queue, None)
        MessageStream.__init__(self, high, low, None if high is None else QUEUE_BYTES)
        self.write_high, self.write_low = write_limit if isinstance(write_limit, tuple) else (write_limit, None)
        self.protocol_logger = protocol.logger
        self.keepalive_interval = ping_interval
        self.keepalive_limit = ping_timeout
        self.close_timeout = close_timeout
        self.tells_end_late = True

    # Attributes.

    @property
    def id(self):
        """A UUID of the connection, for logs."""
        if self.given_id is None:
            self.given_id = uuid.uuid4()
        return self.given_id

    @id.setter
    def id(self, value):
        self.given_id = value

    @property
    def logger(self):
        """A logger that knows the connection: its records have the attribute `websocket`."""
        if self.given_logger is not None:
            return self.given_logger
        # Not kept: it leads back to the connection.
        return logging.LoggerAdapter(self.protocol_logger, {"websocket": self})

    @logger.setter
    def logger(self, value):
        self.given_logger = value

    @property
    def transport(self):
        """The asyncio transport."""
        return None if self._transport is None else self._transport.underlying_transport

    @property
    def ws_transport(self):
        """The `WSTransport`; None before the connection is made."""
        return self._transport

    @property
    def is_fragmenting(self):
        """Whether a fragmented message is being sent, between whose fragments no other message may stand."""
        return self.fragmenting is not None

    @property
    def local_address(self):
        """What :meth:`socket.socket.getsockname` returns: ``(host, port)`` for IPv4."""
        return extra_info(self, "sockname")

    @property
    def remote_address(self):
        """What :meth:`socket.socket.getpeername` returns: ``(host, port)`` for IPv4."""
        return extra_info(self, "peername")

    @property
    def request(self):
        """The opening handshake's request."""
        if self.given_request is None and self._transport is not None:
            self.given_request = shown_request(self._transport.request)
        return self.given_request

    @request.setter
    def request(self, value):
        self.given_request = value

    @property
    def response(self):
        """The opening handshake's response."""
        if self.given_response is None and self._transport is not None:
            self.given_response = shown_response(self._transport.response)
        return self.given_response

    @response.setter
    def response(self, value):
        self.given_response = value

    @property
    def subprotocol(self):
        """The subprotocol agreed on, or None."""
        response = None if self._transport is None else self._transport.response
        return None if response is None else response.headers.get("Sec-WebSocket-Protocol")

    @property
    def state(self):
        """A `State`; whoever sends or receives need not ask for it."""
        if self.ended:
            return CLOSED
        if self._transport is None:
            return CONNECTING
        return OPEN if self._transport.close_handshake is None else CLOSING

    @property
    def close_code(self):
        """What the peer's CLOSE said: 1005 without a code, 1006 when none came. None until the connection has ended."""
        if not self.ended:
            return None
        received = received_close(self)
        return ABNORMAL_CLOSURE if received is None else received.code

    @property
    def close_reason(self):
        """The reason of the peer's CLOSE, empty when there was none. None until the connection has ended."""
        if not self.ended:
            return None
        received = received_close(self)
        return "" if received is None else received.reason

    # Any other attribute may be set, as on an object of Python, and costs nothing until then. A __dict__ would cost each
    # frame a look for methods that override the callbacks, and a __getattr__ each `ws.recv` an object for the bound method.

    def __setattr__(self, name, value):
        try:
            PyObject_GenericSetAttr(self, name, value)
        except AttributeError:
            if hasattr(type(self), name):
                raise
            show_attributes(self)
            if self.attributes is None:
                self.attributes = {}
            self.attributes[name] = value

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__qualname__} object at {id(self):#x}>"

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, traceback):
        if kind is None:
            await self.close()
        else:
            await self.close(CloseCode.INTERNAL_ERROR)

    # Receiving.

    def recv(self, decode=None):
        """Wait for the next message: a `str` for TEXT, `bytes` for BINARY. Cancelling it loses nothing.

        :param decode: False: `bytes` in any case; True: a `str` in any case, decoded from UTF-8
        :raises ConnectionClosed: when the connection has ended and all messages were taken
        :raises ConcurrencyError: when another coroutine waits for a message
        """
        if decode is None:
            return self.receiving()
        return self.recv_as(decode)

    @cython.binding(True)
    async def recv_as(self, decode):
        message = await self.receiving()
        if not decode:
            return message.encode() if isinstance(message, str) else message
        if isinstance(message, str):
            return message
        try:
            return message.decode()
        except UnicodeDecodeError as error:
            if not self.ended:
                self._transport.send_close(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                self._transport.disconnect()
                self.cause = error
                await self.wait_closed()
            raise self.end_error() from error

    async def recv_streaming(self, decode=None):
        """Yield the fragments of the next message: here the whole message, as :meth:`recv` returns it."""
        yield await (self.receiving() if decode is None else self.recv_as(decode))

    # Sending.

    def send(self, message, *, text=None):
        """Send a `str` as TEXT, and `bytes`, a `bytearray` or a `memoryview` as BINARY.

        Of an iterable, or asynchronous iterable, each item is sent as a fragment; all are to be of one type. Waits while more
        than `write_limit` is queued.

        :param text: True: as TEXT, False: as BINARY, whatever the type
        :raises ConnectionClosed: when the connection ends or has ended
        :raises TypeError: for a message of another type
        """
        if text is None and self.fragmenting is None:
            if PyUnicode_Check(message):
                return self.sending(WSMsgType.TEXT, message)
            if PyBytes_Check(message) or isinstance(message, (bytearray, memoryview)):
                return self.sending(WSMsgType.BINARY, message)
        return self.send_otherwise(message, text)

    @cython.binding(True)
    async def send_otherwise(self, message, text):
        while self.fragmenting is not None:
            await asyncio.shield(self.fragmenting)
        if is_data(message):
            await self.sending(frame_type(message, text), message)
        elif isinstance(message, Mapping):
            raise TypeError("message is a mapping: to send its keys as fragments, pass message.keys()")
        elif isinstance(message, (Iterable, AsyncIterable)):
            self.fragmenting = self.loop.create_future()
            try:
                await self.send_fragments(message, text)
            finally:
                done, self.fragmenting = self.fragmenting, None
                done.set_result(None)
        else:
            raise TypeError(
                f"message is of type {type(message).__name__}, expected str, bytes-like or an iterable of one of these")

    @cython.binding(True)
    async def send_fragments(self, message, text):
        cdef int kind = -1
        is_text = None
        try:
            async for fragment in each(message):
                if not is_data(fragment):
                    raise TypeError(f"a fragment is of type {type(fragment).__name__}, expected str or bytes-like")
                if is_text is None:
                    is_text = isinstance(fragment, str)
                    kind = frame_type(fragment, text)
                elif isinstance(fragment, str) != is_text:
                    raise TypeError("fragments of both str and bytes-like, expected all of one type")
                await self.send_fragment(kind, fragment, False)
                kind = WSMsgType.CONTINUATION
            if is_text is not None:
                await self.send_fragment(WSMsgType.CONTINUATION, b"", True)
        except (ConnectionClosedOK, ConnectionClosedError):
            raise
        except BaseException as error:
            # What was begun cannot be taken back, and nothing else may be sent before it is complete.
            self._transport.send_close(CloseCode.INTERNAL_ERROR, "error in fragmented message")
            self._transport.disconnect()
            if isinstance(error, Exception):
                await self.wait_closed()
            raise

    @cython.binding(True)
    async def send_fragment(self, int kind, fragment, bint fin):
        if not self._transport.send(<WSMsgType>kind, fragment, fin):
            await self.raise_closed()
        await self.drain()

    @cython.binding(True)
    async def raise_closed(self):
        await self.wait_closed()
        raise self.end_error()

    # Control frames.

    @cython.binding(True)
    async def ping(self, data=None):
        """Send a PING, and return a future for its PONG: its result is the latency in seconds.

        :param data: a `str` or bytes-like of up to 125 bytes; random by default
        :raises ConnectionClosed: when the connection ends or has ended; the future raises it as well
        :raises ConcurrencyError: when one with the same data is waited for
        """
        payload = None if data is None else control_payload(data)
        if not can_send(self):
            await self.raise_closed()
        waiter = self.loop.create_future()
        if payload is not None:
            if not self.send_ping(payload, waiter):
                raise ConcurrencyError("a ping with the same data is waiting for its pong")
        else:
            while not self.send_ping(os.urandom(4), waiter):
                pass
        return waiter

    @cython.binding(True)
    async def pong(self, data=b""):
        """Send a PONG that nobody has asked for.

        :param data: a `str` or bytes-like of up to 125 bytes
        :raises ConnectionClosed: when the connection ends or has ended
        """
        payload = control_payload(data)
        if not can_send(self):
            await self.raise_closed()
        self._transport.send_pong(payload)

    @cython.binding(True)
    async def close(self, code=CloseCode.NORMAL_CLOSURE, reason=""):
        """Close the connection: both sides say CLOSE, then TCP ends. Does nothing when it has ended.

        What was received before can still be taken.

        :param code: 1000 to 1014 as RFC 6455 has them, 3000 to 4999 for applications; None: none
        :param reason: up to 123 bytes of UTF-8
        """
        if self.ended or self._transport is None:
            return
        if self.fragmenting is not None:
            code, reason = CloseCode.INTERNAL_ERROR, "close during fragmented message"
        try:
            if code == 0:
                raise ValueError("code is 0, expected 1000 to 4999, or None for none")
            self._transport.send_close(0 if code is None else code, reason or None)
        except ValueError as error:
            raise ProtocolError(str(error)) from error
        self.closing = True
        # The code counts for nothing: that CLOSE was sent.
        await MessageStream.close(self, 1000, None, AT_ONCE if self.close_timeout == 0 else self.close_timeout)

    # What the engine calls.

    cpdef on_ws_connected(self, WSTransport transport):
        MessageStream.on_ws_connected(self, transport)
        self.extra_info = None
        transport.underlying_transport.set_write_buffer_limits(high=self.write_high, low=self.write_low)
        if self.keepalive_interval:
            self.keep_alive(self.keepalive_interval, self.keepalive_limit)

    cpdef close_received(self, WSFrame frame):
        # As `websockets` does, with the reason too; the connection itself would answer with the code only.
        self._transport.send_close(frame.get_close_code(), frame.get_close_message())

    cpdef ended_well(self):
        return is_normal(received_close(self)) and is_normal(sent_close(self))

    cpdef end_error(self):
        handshake = None if self._transport is None else self._transport.close_handshake
        received, sent = received_close(self), sent_close(self)
        kind = ConnectionClosedOK if is_normal(received) and is_normal(sent) else ConnectionClosedError
        both = received is not None and sent is not None
        error = kind(received, sent, handshake.recv_then_sent if both else None)
        if self.cause is not None:
            error.__cause__ = self.cause
        elif received is None:
            if sent is None:
                error.__cause__ = EOFError("unexpected end of stream")
            elif not self.closing and sent.code in FAULT_CODES:
                error.__cause__ = ProtocolError(sent.reason)
        return error

    cpdef concurrency_error(self):
        return ConcurrencyError("recv() was called while another coroutine waits in recv() or recv_streaming()")


cdef class ClientConnection(Connection):
    """A connection that `connect` has made."""


cdef class ServerConnection(Connection):
    """A connection of a server.

    :param server: the `Server`
    """

    def __init__(self, protocol, server, **options):
        Connection.__init__(self, protocol, **options)
        self.server = server
        self.username = None

    cpdef on_ws_connected(self, WSTransport transport):
        Connection.on_ws_connected(self, transport)
        self.server.connection_open(self)

    cpdef connection_ended(self):
        self.server.connection_closed(self)

    def respond(self, status, text):
        """A response with a body of plain text, for `process_request` and `process_response` to refuse by.

        :param status: an `http.HTTPStatus`, or its number
        """
        from http import HTTPStatus
        from email.utils import formatdate
        status = HTTPStatus(status)
        body = text.encode()
        headers = Headers([
            ("Date", formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", "text/plain; charset=utf-8"),
        ])
        return Response(status.value, status.phrase, headers, body)


def show_request(ServerConnection connection not None, request):
    """What the connection shows before it is made: its request, and the addresses."""
    connection.given_request = shown_request(request)
    connection.extra_info = getattr(request, "get_extra_info", None)


# Connections with attributes of the user's. A connection turns into one when the first is set: the types differ in nothing
# that lies in the object.

cdef class ClientConnectionWithAttributes(ClientConnection):

    def __getattr__(self, name):
        return attribute(self, name)

    def __delattr__(self, name):
        delete_attribute(self, name)


cdef class ServerConnectionWithAttributes(ServerConnection):

    def __getattr__(self, name):
        return attribute(self, name)

    def __delattr__(self, name):
        delete_attribute(self, name)


cdef int show_attributes(Connection connection) except -1:
    if Py_TYPE(connection) is <PyTypeObject*>ClientConnection:
        Py_SET_TYPE(connection, <PyTypeObject*>ClientConnectionWithAttributes)
    elif Py_TYPE(connection) is <PyTypeObject*>ServerConnection:
        Py_SET_TYPE(connection, <PyTypeObject*>ServerConnectionWithAttributes)
    return 0


cdef object attribute(Connection connection, name):
    if connection.attributes is None or name not in connection.attributes:
        raise AttributeError(f"{type(connection).__name__!r} object has no attribute {name!r}")
    return connection.attributes[name]


cdef int delete_attribute(Connection connection, name) except -1:
    attribute(connection, name)
    del connection.attributes[name]
    return 0


cdef object extra_info(Connection connection, str name):
    if connection.extra_info is not None:
        return connection.extra_info(name)
    transport = connection._transport
    return None if transport is None else transport.underlying_transport.get_extra_info(name)


cdef int own_methods(PyTypeObject* kind) except -1:
    """Give a type what is called for every message as methods of its own: CPython calls inherited ones the long way."""
    attributes = <object>kind.tp_dict
    inherited = <object>(<PyTypeObject*>Connection).tp_dict
    for name in ("recv", "send"):
        method = inherited[name]
        attributes[name] = PyDescr_NewMethod(kind, (<PyMethodDescrObject*>method).d_method)
    PyType_Modified(kind)
    return 0


own_methods(<PyTypeObject*>ClientConnection)
own_methods(<PyTypeObject*>ServerConnection)
own_methods(<PyTypeObject*>ClientConnectionWithAttributes)
own_methods(<PyTypeObject*>ServerConnectionWithAttributes)


# CLOSE frames as `websockets` shows them.

cdef object received_close(Connection connection):
    handshake = None if connection._transport is None else connection._transport.close_handshake
    return None if handshake is None else shown_close(handshake.recv)


cdef object sent_close(Connection connection):
    handshake = None if connection._transport is None else connection._transport.close_handshake
    return None if handshake is None else shown_close(handshake.sent)


cdef object shown_close(info):
    if info is None:
        return None
    return Close(int(info.code) or CloseCode.NO_STATUS_RCVD, info.reason or "")


cdef bint is_normal(close) except -1:
    return close is not None and close.code in OK_CODES


cdef bint can_send(Connection connection) except -1:
    transport = connection._transport
    if transport is None:
        raise RuntimeError("the connection was not made yet")
    return not connection.ended and not transport.is_disconnected and not transport.is_close_frame_sent


# Messages.

cdef bint is_data(message) except -1:
    return isinstance(message, (str, bytes, bytearray, memoryview))


cdef int frame_type(message, text) except -1:
    if text is not True and text is not False:
        text = isinstance(message, str)
    return WSMsgType.TEXT if text else WSMsgType.BINARY


async def each(message):
    if isinstance(message, AsyncIterable):
        async for fragment in message:
            yield fragment
    else:
        for fragment in message:
            yield fragment


cdef bytes control_payload(data):
    if isinstance(data, str):
        payload = data.encode()
    elif isinstance(data, (bytes, bytearray, memoryview)):
        payload = bytes(data)
    else:
        raise TypeError(f"data is of type {type(data).__name__}, expected str or bytes-like")
    if len(payload) > 125:
        raise ProtocolError(f"data has {len(payload)} bytes, expected at most 125 (RFC 6455 section 5.5)")
    return payload


def shown_request(request):
    """A `WSUpgradeRequest` as a `Request`."""
    return Request(request.path.decode(), Headers(request.headers.items()))
