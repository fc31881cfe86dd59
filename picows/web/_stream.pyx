"""The engine of awaited messages, with the errors that handlers are told."""

from picows._streams cimport MessageStream
from picows.picows cimport WSMsgType

from . import status
from .exceptions import WebSocketDisconnect


cdef class WebStream(MessageStream):
    """The messages of a WebSocket on our own server."""

    def send_text(self, message):
        """As :meth:`send`, but `bytes` are UTF-8 to be sent as TEXT."""
        return self.sending(WSMsgType.TEXT, message)

    cpdef ended_well(self):
        return True     # who iterates goes on behind the loop, however the client has left

    cpdef end_error(self):
        # Python looks their attributes up, and sees None where C would not.
        cdef object handshake = None if self._transport is None else self._transport.close_handshake
        cdef object close
        if handshake is None:
            return WebSocketDisconnect(status.WS_1006_ABNORMAL_CLOSURE)
        close = handshake.recv or handshake.sent
        return WebSocketDisconnect(int(close.code) or status.WS_1005_NO_STATUS, close.reason or "")
