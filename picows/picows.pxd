"""The public Cython interface: ``from picows.picows cimport WSFrame, WSTransport, WSListener, WSMsgType``.

This file is an ABI: extensions compiled against it rely on the order of the fields and of the methods of each class.
Add at the end only, and never between releases of one major version.
"""

cpdef enum WSMsgType:
    """What a frame is: its opcode (RFC 6455 5.2).

    CONTINUATION, TEXT and BINARY carry messages; CLOSE, PING and PONG are control frames, of at most 125 bytes and never
    fragmented.
    """
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


cpdef enum WSCloseCode:
    """Why a connection was closed (RFC 6455 7.4.1); 3000 to 4999 are free for applications. NO_INFO stands for no code."""
    NO_INFO = 0
    OK = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    ABNORMAL_CLOSURE = 1006
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


cpdef enum WSAutoPingStrategy:
    """When auto ping sends a ping: when nothing has come for a while, or at fixed intervals."""
    PING_WHEN_IDLE = 1
    PING_PERIODICALLY = 2


cpdef enum WSSlowPeerPolicy:
    """What happens when more than `max_write_buffer_size` would wait for a peer that does not read.

    DISCONNECT aborts the connection, DROP_NEWEST leaves the message out, RAISE raises `WSSlowPeerError`.
    """
    DISCONNECT = 1
    DROP_NEWEST = 2
    RAISE = 3


cdef class WSFrame:
    # Valid inside on_ws_frame only; from Python the same names are read-only attributes that say so when used later.
    cdef:
        char* payload_ptr
        Py_ssize_t payload_size
        Py_ssize_t tail_size
        WSMsgType msg_type
        bint fin
        bint rsv1
        bint rsv2
        bint rsv3
        bint last_in_buffer
        object _buffer          # the owner of the memory behind payload_ptr; None once the callback is over

    cpdef bytes get_payload_as_bytes(self)
    cpdef str get_payload_as_utf8_text(self)
    cpdef str get_payload_as_ascii_text(self)
    cpdef object get_payload_as_memoryview(self)
    cdef WSCloseCode get_close_code(self) except *
    cpdef object get_close_message(self)
    cpdef object get_close_reason(self)


cdef class WSCloseInfo:
    cdef:
        readonly object code
        readonly object reason


cdef class WSCloseHandshake:
    cdef:
        readonly WSCloseInfo sent
        readonly WSCloseInfo recv
        readonly bint recv_then_sent


cdef class WSTransport:
    cdef:
        readonly object underlying_transport
        readonly object request
        readonly object response
        readonly WSCloseHandshake close_handshake
        readonly bint is_client_side
        readonly bint is_secure
        readonly bint is_close_frame_sent
        readonly bint is_disconnected
        object _connection
        object _failure         # what wait_disconnected raises, and the traceback it came with
        object __weakref__

    cpdef send(self, WSMsgType msg_type, message, bint fin=*, bint rsv1=*, bint rsv2=*, bint rsv3=*, compress=*)
    cpdef send_reuse_external_bytearray(self, WSMsgType msg_type, bytearray buffer, Py_ssize_t msg_offset,
                                        bint fin=*, bint rsv1=*, bint rsv2=*, bint rsv3=*)
    # 14 writable bytes have to lie in front of msg_ptr: the frame's header is built there, and on the client side
    # the message is masked in place.
    cdef int send_reuse_external_buffer(self, WSMsgType msg_type, char* msg_ptr, Py_ssize_t msg_size,
                                        bint fin=*, bint rsv1=*, bint rsv2=*, bint rsv3=*) except -1
    cpdef send_ping(self, message=*)
    cpdef send_pong(self, message=*)
    cpdef send_close(self, close_code=*, close_message=*)
    cpdef disconnect(self, bint graceful=*)
    cpdef notify_user_specific_pong_received(self)
    cpdef flush(self)


cdef class WSListener:
    cdef object __weakref__

    cpdef on_ws_connected(self, WSTransport transport)
    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame)
    cpdef on_ws_disconnected(self, WSTransport transport)
    cpdef send_user_specific_ping(self, WSTransport transport)
    cpdef is_user_specific_pong(self, WSFrame frame)
    cpdef pause_writing(self)
    cpdef resume_writing(self)
