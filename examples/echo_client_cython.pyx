# cython: language_level=3, freethreading_compatible=True
"""An echo client in Cython: calls between picows and the listener are C calls, fields C fields.

Subclass by `cdef class`, override the callbacks by `cpdef`, and type what you pass around.
"""

from libc.string cimport memcpy, memcmp

from picows.picows cimport WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from time import perf_counter

cdef extern from *:
    """
    static const char MESSAGE[] = "Hello world";
    enum {
        MESSAGE_SIZE = sizeof(MESSAGE) - 1,
        HEADER_SPACE = 14  /* the longest header of a frame */
    };
    """
    const char* MESSAGE
    const Py_ssize_t MESSAGE_SIZE
    const Py_ssize_t HEADER_SPACE


cdef class EchoClient(WSListener):
    cdef:
        readonly Py_ssize_t round_trips
        readonly double seconds
        Py_ssize_t _wanted
        double _started
        char _buffer[32]  # HEADER_SPACE + MESSAGE_SIZE, and some

    def __init__(self, Py_ssize_t round_trips):
        self._wanted = round_trips

    cpdef on_ws_connected(self, WSTransport transport):
        self._started = perf_counter()
        self._send(transport)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            # The payload lies in the read buffer, and no Python object is made of it. The pointer
            # is good until this callback returns.
            if frame.payload_size != MESSAGE_SIZE or memcmp(frame.payload_ptr, MESSAGE, MESSAGE_SIZE):
                raise ValueError(f"expected the message back, received {frame.get_payload_as_bytes()!r}")
            self.round_trips += 1
            if self.round_trips < self._wanted:
                self._send(transport)
            else:
                self.seconds = perf_counter() - self._started
                transport.send_close(WSCloseCode.OK)
                transport.disconnect()

    cdef _send(self, WSTransport transport):
        # The frame is built around the message where it lies: the header in the space in front
        # of it, and the mask over it. That is why the message has to be written anew each time.
        memcpy(self._buffer + HEADER_SPACE, MESSAGE, MESSAGE_SIZE)
        transport.send_reuse_external_buffer(WSMsgType.TEXT, self._buffer + HEADER_SPACE, MESSAGE_SIZE)
