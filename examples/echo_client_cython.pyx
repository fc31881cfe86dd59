# cython: language_level=3, freethreading_compatible=True
"""An echo client in Cython: calls between picows and the listener are C calls, fields C fields, and no payload is an object.

Subclass by `cdef class`, override the callbacks by `cpdef`, and type what you pass around.
"""

from libc.string cimport memcmp, memcpy
from picows.picows cimport WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

cdef const char* MESSAGE = b"Hello world"
cdef enum:
    MESSAGE_SIZE = 11
    HEADER_SPACE = 14  # the longest header of a frame


cdef class EchoClient(WSListener):
    cdef readonly Py_ssize_t round_trips, wanted
    cdef char buffer[HEADER_SPACE + MESSAGE_SIZE]

    def __init__(self, Py_ssize_t wanted):
        self.wanted = wanted

    cpdef on_ws_connected(self, WSTransport transport):
        # The frame is built around the message where it lies: the header in the space in front, and the mask over it.
        memcpy(self.buffer + HEADER_SPACE, MESSAGE, MESSAGE_SIZE)
        transport.send_reuse_external_buffer(WSMsgType.TEXT, self.buffer + HEADER_SPACE, MESSAGE_SIZE)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.TEXT:
            # payload_ptr points into the read buffer, and is good until this callback returns.
            if frame.payload_size != MESSAGE_SIZE or memcmp(frame.payload_ptr, MESSAGE, MESSAGE_SIZE):
                raise ValueError(f"expected the message back, received {frame.get_payload_as_bytes()!r}")
            self.round_trips += 1
            if self.round_trips < self.wanted:
                self.on_ws_connected(transport)
            else:
                transport.send_close(WSCloseCode.OK)
