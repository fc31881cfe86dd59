# cython: language_level=3, freethreading_compatible=True
"""What a user of the Cython interface writes: a listener that is a C class, frames read and sent at C cost."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from picows.picows cimport WSAutoPingStrategy, WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

cdef enum:
    HEADER_ROOM = 14


cdef class UserListener(WSListener):
    """Sends a text from memory of its own, and keeps what comes back."""

    cdef:
        bytes greeting
        char* memory
        readonly WSTransport transport
        readonly list received

    def __cinit__(self, bytes greeting):
        self.greeting = greeting
        self.received = []
        self.memory = <char*>malloc(HEADER_ROOM + len(greeting))

    def __dealloc__(self):
        free(self.memory)

    cpdef on_ws_connected(self, WSTransport transport):
        self.transport = transport
        memcpy(self.memory + HEADER_ROOM, <const char*>self.greeting, len(self.greeting))
        transport.send_reuse_external_buffer(WSMsgType.TEXT, self.memory + HEADER_ROOM, len(self.greeting))
        transport.send(WSMsgType.BINARY, b"bytes", False)
        transport.send_ping(b"ping")

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef bytes by_pointer = frame.payload_ptr[:frame.payload_size]
        assert by_pointer == frame.get_payload_as_bytes()
        assert frame.get_payload_as_memoryview() == by_pointer
        assert not (frame.rsv1 or frame.rsv2 or frame.rsv3)
        assert frame.last_in_buffer == (frame.tail_size == 0)
        self.received.append((<int>frame.msg_type, bool(frame.fin), by_pointer))
        if frame.msg_type == WSMsgType.PONG:
            assert transport.is_client_side and not transport.is_close_frame_sent
            transport.send_close(WSCloseCode.GOING_AWAY, b"seen enough")
            transport.disconnect()

    cpdef on_ws_disconnected(self, WSTransport transport):
        self.received.append((<int>WSMsgType.CLOSE, transport is self.transport and transport.is_disconnected, b""))

    cpdef send_user_specific_ping(self, WSTransport transport):
        transport.send_ping(b"mine")

    cpdef is_user_specific_pong(self, WSFrame frame):
        return frame.msg_type == WSMsgType.PONG

    cpdef pause_writing(self):
        pass

    cpdef resume_writing(self):
        pass


def strategies():
    return [<int>WSAutoPingStrategy.PING_WHEN_IDLE, <int>WSAutoPingStrategy.PING_PERIODICALLY]
