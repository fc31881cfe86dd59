# cython: language_level=3, freethreading_compatible=True
"""All that a compiled user may do by picows.pxd: every field read and every method called at C level."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from picows.picows cimport (
    WSAutoPingStrategy, WSCloseCode, WSCloseHandshake, WSFrame, WSListener, WSMsgType, WSSlowPeerPolicy, WSTransport,
)

cdef enum:
    HEADER_ROOM = 14
    GUARD = 0x5AFEC0DE


def constants():
    """What the compiler put into this module for the members of the enums."""
    return {
        "WSMsgType": {
            "CONTINUATION": <int>WSMsgType.CONTINUATION,
            "TEXT": <int>WSMsgType.TEXT,
            "BINARY": <int>WSMsgType.BINARY,
            "CLOSE": <int>WSMsgType.CLOSE,
            "PING": <int>WSMsgType.PING,
            "PONG": <int>WSMsgType.PONG,
        },
        "WSCloseCode": {
            "NO_INFO": <int>WSCloseCode.NO_INFO,
            "OK": <int>WSCloseCode.OK,
            "GOING_AWAY": <int>WSCloseCode.GOING_AWAY,
            "PROTOCOL_ERROR": <int>WSCloseCode.PROTOCOL_ERROR,
            "UNSUPPORTED_DATA": <int>WSCloseCode.UNSUPPORTED_DATA,
            "ABNORMAL_CLOSURE": <int>WSCloseCode.ABNORMAL_CLOSURE,
            "INVALID_TEXT": <int>WSCloseCode.INVALID_TEXT,
            "POLICY_VIOLATION": <int>WSCloseCode.POLICY_VIOLATION,
            "MESSAGE_TOO_BIG": <int>WSCloseCode.MESSAGE_TOO_BIG,
            "MANDATORY_EXTENSION": <int>WSCloseCode.MANDATORY_EXTENSION,
            "INTERNAL_ERROR": <int>WSCloseCode.INTERNAL_ERROR,
            "SERVICE_RESTART": <int>WSCloseCode.SERVICE_RESTART,
            "TRY_AGAIN_LATER": <int>WSCloseCode.TRY_AGAIN_LATER,
            "BAD_GATEWAY": <int>WSCloseCode.BAD_GATEWAY,
        },
        "WSAutoPingStrategy": {
            "PING_WHEN_IDLE": <int>WSAutoPingStrategy.PING_WHEN_IDLE,
            "PING_PERIODICALLY": <int>WSAutoPingStrategy.PING_PERIODICALLY,
        },
        "WSSlowPeerPolicy": {
            "DISCONNECT": <int>WSSlowPeerPolicy.DISCONNECT,
            "DROP_NEWEST": <int>WSSlowPeerPolicy.DROP_NEWEST,
            "RAISE": <int>WSSlowPeerPolicy.RAISE,
        },
    }


cdef class Caller(WSListener):
    # Fields of our own lie behind those of the base: the guards tell when it has grown into them.
    cdef:
        long before
        readonly WSTransport transport
        readonly list calls
        WSListener plain
        long behind

    def __cinit__(self):
        self.before = self.behind = GUARD
        self.calls = []
        self.plain = WSListener()

    cdef int note(self, str call) except -1:
        assert self.before == GUARD and self.behind == GUARD
        self.calls.append(call)
        return 0

    cpdef on_ws_connected(self, WSTransport transport):
        self.note("on_ws_connected")
        self.transport = transport
        compare_transport(transport)
        assert self.plain.on_ws_connected(transport) is None
        send_everything(transport)
        self.plain.send_user_specific_ping(transport)
        # More than a socket takes at once.
        transport.send(WSMsgType.BINARY, bytes(8 << 20))
        transport.send(WSMsgType.TEXT, b"answer")

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        assert transport is self.transport
        compare_frame(frame)
        assert self.plain.is_user_specific_pong(frame) is (frame.msg_type == WSMsgType.PONG)
        assert self.plain.on_ws_frame(transport, frame) is None
        if frame.msg_type == WSMsgType.PONG:
            self.note("pong")
            transport.notify_user_specific_pong_received()
        elif frame.msg_type == WSMsgType.CLOSE:
            self.note(f"close {<int>frame.get_close_code()} {frame.get_close_message()} {frame.get_close_reason()}")
            compare_transport(transport)
            transport.send_close(WSCloseCode.GOING_AWAY, b"seen enough")
            compare_transport(transport)
            transport.disconnect(True)
        else:
            self.note(f"{<int>frame.msg_type} {frame.get_payload_as_bytes()}")

    cpdef on_ws_disconnected(self, WSTransport transport):
        self.note("on_ws_disconnected")
        compare_transport(transport)
        assert self.plain.on_ws_disconnected(transport) is None

    cpdef send_user_specific_ping(self, WSTransport transport):
        self.note("send_user_specific_ping")
        transport.send_ping(b"mine")

    cpdef is_user_specific_pong(self, WSFrame frame):
        self.note("is_user_specific_pong")
        return False

    cpdef pause_writing(self):
        self.note("pause_writing")
        assert self.plain.pause_writing() is None

    cpdef resume_writing(self):
        self.note("resume_writing")
        assert self.plain.resume_writing() is None


cdef int send_everything(WSTransport transport) except -1:
    cdef char* memory = <char*>malloc(HEADER_ROOM + 6)
    memcpy(memory + HEADER_ROOM, b"buffer", 6)
    corked = (<object>transport).cork()
    try:
        with corked:
            # Each optional argument stands for itself on the wire.
            assert transport.send(WSMsgType.TEXT, b"send", True, True, False, False, None) is True
            assert transport.send(WSMsgType.TEXT, b"send", False, False, True, False) is True
            assert transport.send_reuse_external_bytearray(
                WSMsgType.CONTINUATION, bytearray(HEADER_ROOM) + b"bytearray", HEADER_ROOM, True, False, False, True) is True
            assert transport.send_reuse_external_buffer(
                WSMsgType.BINARY, memory + HEADER_ROOM, 6, True, False, True, True) == 1
            assert (<object>transport).write_buffer_size > 0
            assert transport.flush() is None
            assert (<object>transport).write_buffer_size == 0
            assert transport.send_ping(b"ping") is None
            assert transport.send_pong(b"pong") is None
    finally:
        free(memory)
    return 0


cdef int compare_frame(WSFrame frame) except -1:
    """What the fields of C say is what Python's attributes say."""
    cdef object seen = frame
    cdef bytes payload = frame.payload_ptr[:frame.payload_size]
    assert frame.payload_size == seen.payload_size
    assert frame.tail_size == seen.tail_size
    assert <int>frame.msg_type == seen.msg_type
    assert (frame.fin, frame.rsv1, frame.rsv2, frame.rsv3) == (seen.fin, seen.rsv1, seen.rsv2, seen.rsv3)
    assert frame.last_in_buffer == seen.last_in_buffer
    assert frame._buffer is not None
    assert payload == frame.get_payload_as_bytes() == bytes(seen)
    assert frame.get_payload_as_memoryview() == payload
    assert type(frame.get_payload_as_memoryview()) is memoryview
    if frame.msg_type == WSMsgType.TEXT:
        assert frame.get_payload_as_utf8_text() == payload.decode()
        try:
            assert frame.get_payload_as_ascii_text() == payload.decode("ascii")
        except UnicodeDecodeError:
            assert not payload.isascii()
    return 0


cdef int compare_transport(WSTransport transport) except -1:
    cdef object seen = transport
    cdef WSCloseHandshake handshake = transport.close_handshake
    assert transport.underlying_transport is seen.underlying_transport
    assert transport.request is seen.request
    assert transport.response is seen.response
    assert transport.is_client_side and seen.is_client_side
    assert not transport.is_secure and not seen.is_secure
    assert transport.is_close_frame_sent == seen.is_close_frame_sent
    assert transport.is_disconnected == seen.is_disconnected
    assert handshake is seen.close_handshake
    assert transport._connection is not None
    assert transport._failure is None
    if handshake is not None:
        assert handshake.recv is seen.close_handshake.recv
        assert handshake.sent is seen.close_handshake.sent
        assert handshake.recv_then_sent and seen.close_handshake.recv_then_sent
        assert handshake.recv.code == seen.close_handshake.recv.code == 4000
        assert handshake.recv.reason == seen.close_handshake.recv.reason == "done"
    return 0
