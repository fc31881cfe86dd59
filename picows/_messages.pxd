# Messages of RFC 6455 section 5.4 out of the data frames of one connection: joined, inflated and checked.
# In here: no asyncio, no input or output. A fault of the peer is a MessageStatus.

from cpython.ref cimport PyObject
from libc.stdint cimport SIZE_MAX, uint8_t, uint16_t, uint32_t, uint64_t

from picows._codec cimport Frame, MAX_CONTROL_PAYLOAD


cdef enum MessageStatus:
    MESSAGE_RAISED = -1
    MESSAGE_READY = 0
    MESSAGE_MORE = 1
    ERR_RSV_RESERVED
    ERR_RSV1_UNEXPECTED
    ERR_RSV1_MISPLACED
    ERR_STRAY_CONTINUATION
    ERR_MESSAGE_UNFINISHED
    ERR_MESSAGE_TOO_BIG
    ERR_TOO_MANY_FRAGMENTS
    ERR_TEXT_NOT_UTF8

cdef enum:
    OPCODE_TEXT = 1
    FREE_FRAGMENTS = 1024
    FRAGMENT_SIZE = 16


# How many frames a message may have: any number of usual size, but an endless row of empty ones costs time as well.
cdef inline size_t fragments_allowed(size_t max_message_size) noexcept nogil:
    return FREE_FRAGMENTS + max_message_size // FRAGMENT_SIZE


# What n bytes that cannot be compressed take at most when deflate leaves them larger: 9 bits for each, and block headers.
cdef inline size_t deflated_size(size_t n) noexcept nogil:
    return n + n // 8 + n // 64 + 64


cdef class MessageAssembler:
    cdef:
        # The message, after feed() returned MESSAGE_READY. It lies in `owner`, a bytes object, or, when that is None, in the
        # payload of the frame fed last.
        uint8_t* payload
        size_t size
        object owner
        uint8_t opcode
        # private
        bint idle                   # between two messages, and nothing failed
        bint compressed
        MessageStatus fault         # the first one; MESSAGE_RAISED: `error` was raised
        uint32_t utf8_state
        size_t fragments            # of the message under way; 0: there is none
        size_t max_message_size
        PyObject* joined            # a bytes object, NULL or with room for joined_capacity; joined_size of it are filled
        size_t joined_size, joined_capacity
        object inflater
        object error

    # One data frame, unmasked, whose opcode is 0, 1 or 2. MESSAGE_READY: the fields above are a message. MESSAGE_MORE: it
    # goes on. Anything else: a fault, which stays the answer.
    # What the inflater raises, and MemoryError, pass through; the assembler has then failed and raises it again.
    cdef MessageStatus feed(self, Frame* frame) except MESSAGE_RAISED
    # A control frame is no part of a message, but its reserved bits have to be clear: MESSAGE_MORE, or a fault that stays.
    cdef MessageStatus check_control(self, Frame* frame) noexcept
    # The largest payload that the next frame may have; no less than that of a control frame.
    cdef size_t room(self) noexcept
    # The message has been dealt with: nothing keeps its memory. To be called before the next feed() if there is an owner.
    cdef void release(self) noexcept

    # private
    cdef MessageStatus feed_guarded(self, Frame* frame) except MESSAGE_RAISED
    cdef MessageStatus take(self, Frame* frame) except MESSAGE_RAISED
    cdef bytes inflate(self, Frame* frame, size_t max_size)
    cdef int join(self, const uint8_t* data, size_t n, bint last) except -1
    cdef void fail(self, MessageStatus fault) noexcept


# The close code that tells the peer of a fault (RFC 6455 section 7.4.1); 0 when the status is none.
cdef inline uint16_t message_status_close_code(MessageStatus status) noexcept nogil:
    if status == ERR_MESSAGE_TOO_BIG or status == ERR_TOO_MANY_FRAGMENTS:
        return 1009
    if status == ERR_TEXT_NOT_UTF8:
        return 1007
    return 1002 if status > MESSAGE_MORE else 0


# What came and what was expected, in ASCII; empty when the status is no fault.
cdef inline const char* message_status_sentence(MessageStatus status) noexcept nogil:
    if status == ERR_RSV_RESERVED:
        return b"received a frame with RSV2 or RSV3 set, expected both to be clear"
    if status == ERR_RSV1_UNEXPECTED:
        return b"received a frame with RSV1 set, expected it to be clear, as no compression was agreed"
    if status == ERR_RSV1_MISPLACED:
        return b"received RSV1 on a continuation or control frame, expected it on the first frame of a message only"
    if status == ERR_STRAY_CONTINUATION:
        return b"received a continuation frame outside a message, expected TEXT or BINARY"
    if status == ERR_MESSAGE_UNFINISHED:
        return b"received TEXT or BINARY inside an unfinished message, expected a continuation frame"
    if status == ERR_MESSAGE_TOO_BIG:
        return b"received a message over max_message_size, expected at most that"
    if status == ERR_TOO_MANY_FRAGMENTS:
        return b"received a message in too many small fragments, expected fewer and larger ones"
    if status == ERR_TEXT_NOT_UTF8:
        return b"received a TEXT message that is not UTF-8, expected valid UTF-8"
    return b""
