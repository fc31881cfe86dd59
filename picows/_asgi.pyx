"""The events of an ASGI application on one connection: what its receive() and send() do for every message, in C."""

import asyncio

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.unicode cimport PyUnicode_CheckExact

from picows._streams cimport MessageStream, resume_reading
from picows.picows cimport WSCloseHandshake, WSCloseInfo, WSFrame, WSMsgType, WSTransport

cdef enum:
    NO_STATUS = 1005
    ABNORMAL_CLOSURE = 1006
    MAX_REASON = 123            # bytes that a CLOSE has beside its code (RFC 6455 section 5.5)


@cython.final
cdef class AsgiStream(MessageStream):
    """What an application receives and sends, from before it has accepted the connection to behind its end.

    The connection is made with ``assemble_messages=True`` and without ``enable_auto_close``.

    :param owner:
        answers what is no message by its coroutine method ``send_event``, and is told by ``stream_ended`` when the connection
        is lost
    :param disconnected: the class of the exception for who sends to a peer that has gone
    :param high: how many messages may wait before the socket is not read any more
    """
    cdef:
        object owner
        object disconnected
        bint connect_told
        bint sends              # the application has accepted the connection, and has not closed it
        object end_code         # what our side has ended it with, None: the peer did
        object end_reason

    def __init__(self, owner, disconnected, high):
        MessageStream.__init__(self, high)
        self.owner = owner
        self.disconnected = disconnected
        # An application may wait before there is a connection.
        self.loop = asyncio.get_running_loop()
        self.thread_id = PyThread_get_thread_ident()

    def receive(self):
        """The application's: the next event, a dict."""
        return self.receiving_event() if self.connect_told else connect_event(self)

    def send(self, event):
        """The application's: take an event, a dict."""
        if self.sends and event["type"] == "websocket.send":
            data = event.get("bytes")
            if data is not None:
                return self.sending(WSMsgType.BINARY, data)
            text = event.get("text")
            if isinstance(text, str):
                return self.sending(WSMsgType.TEXT, text)
            raise TypeError(
                f"ASGI message 'websocket.send' needs 'bytes' or a str as 'text', got {type(text).__name__} as 'text'")
        if self.owner is None:
            raise self.end_error()
        return self.owner.send_event(event)

    # What the owner calls.

    def end_before(self, code):
        """There will be no connection: it was refused, or lost. The application is told `code`, unless it was told one."""
        if self.end_code is None:
            self.end_code = code
        self.end()

    def send_close(self, code, reason):
        """Send a CLOSE, unless one was sent or the peer was quicker, and receive no more. The reason is cut to what fits."""
        if self.ended or not self.sends:
            return
        if reason:
            reason = reason.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore")
        self._transport.send_close(code, reason or None)
        self.sends = False
        self.end_code = code
        self.end_reason = reason or ""
        # The peer's CLOSE lies behind what nobody will take.
        self.dropping = True
        resume_reading(self)
        self.end()

    def finish(self, bint graceful=True):
        """End the connection: what was sent still goes out, unless it is cut."""
        if self._transport.underlying_transport.get_extra_info("socket") is not None:
            self._transport.disconnect(graceful)
            return
        # Nothing tells what the peer has taken, so there is nothing to wait for.
        self._transport.flush()
        self._transport.underlying_transport.close()

    def let_go(self):
        """Neither the application nor the connection is there any more."""
        self.owner = None

    # What the stream calls.

    cdef object event_of(self, message):
        if message is None:
            return disconnect_event(self)
        if PyUnicode_CheckExact(message):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    cpdef on_ws_connected(self, WSTransport transport):
        MessageStream.on_ws_connected(self, transport)
        self.sends = True

    cpdef close_received(self, WSFrame frame):
        if self.sends:
            self._transport.send_close(self._transport.close_handshake.recv.code)
        self.end()
        self.finish()

    cpdef connection_ended(self):
        if self.owner is not None:
            self.owner.stream_ended()

    cpdef end_error(self):
        return self.disconnected()


async def connect_event(AsgiStream stream not None):
    stream.connect_told = True
    return {"type": "websocket.connect"}


cdef dict disconnect_event(AsgiStream stream):
    cdef:
        WSCloseHandshake handshake = None if stream._transport is None else stream._transport.close_handshake
        WSCloseInfo said = None
    if stream.end_code is not None:
        if stream.end_reason is None:
            return {"type": "websocket.disconnect", "code": stream.end_code}
        return {"type": "websocket.disconnect", "code": stream.end_code, "reason": stream.end_reason}
    if handshake is not None:
        said = handshake.recv if handshake.sent is None or handshake.recv_then_sent else handshake.sent
    if said is None:
        return {"type": "websocket.disconnect", "code": ABNORMAL_CLOSURE}
    return {"type": "websocket.disconnect", "code": int(said.code) or NO_STATUS, "reason": said.reason or ""}
