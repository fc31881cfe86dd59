"""Whole messages out of data frames (RFC 6455 section 5.4, RFC 7692 section 7): order, size, UTF-8, decompression.

The connection uses MessageAssembler from C, frame by frame.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, _PyBytes_Resize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_INCREF, Py_XDECREF
from libc.string cimport memcpy

from picows._codec cimport UTF8_ACCEPT, UTF8_REJECT, utf8_validate


@cython.final
cdef class MessageAssembler:
    """Joins and checks the messages of one connection, fed with its data frames in order.

    A message of one uncompressed frame is not copied. Fragments are appended to a bytes object that doubles in size, up
    to max_message_size; each byte is copied a bounded number of times. What a fragment may bring is known before memory
    is taken for it: see room().

    max_message_size: limit of a message in bytes, after decompression. A message may have 1024 frames, and one more for
    each 16 bytes of that limit.
    inflater: None, or an object with inflate(data, fin, max_size) for the payloads of compressed messages. It returns
    bytes, at most max_size of them, keeps nothing of `data`, and raises WSProtocolError.
    """

    def __cinit__(self, uint64_t max_message_size, inflater=None):
        # Half the address space, as in reader_init(): no sum can overflow, nor become a negative Py_ssize_t.
        self.max_message_size = <size_t>min(max_message_size, <uint64_t>(SIZE_MAX // 2 - 1024))
        self.inflater = inflater
        self.idle = True

    def __dealloc__(self):
        Py_XDECREF(self.joined)

    cdef MessageStatus feed(self, Frame* frame) except MESSAGE_RAISED:
        # Nearly every message is one plain frame, and ends here. What it is not is told by take().
        if not (
            self.idle and frame.fin and frame.opcode and frame.payload_size <= self.max_message_size
            and not (frame.rsv1 | frame.rsv2 | frame.rsv3)
        ):
            return self.feed_guarded(frame)
        if frame.opcode == OPCODE_TEXT and utf8_validate(UTF8_ACCEPT, frame.payload, frame.payload_size) != UTF8_ACCEPT:
            self.fail(ERR_TEXT_NOT_UTF8)
            return ERR_TEXT_NOT_UTF8
        self.payload = frame.payload
        self.size = frame.payload_size
        self.opcode = frame.opcode
        return MESSAGE_READY

    cdef MessageStatus check_control(self, Frame* frame) noexcept:
        if self.fault == MESSAGE_READY:
            if frame.rsv2 or frame.rsv3:
                self.fail(ERR_RSV_RESERVED)
            elif frame.rsv1:
                self.fail(ERR_RSV1_UNEXPECTED if self.inflater is None else ERR_RSV1_MISPLACED)
        return self.fault if self.fault > MESSAGE_MORE else MESSAGE_MORE

    cdef size_t room(self) noexcept:
        cdef size_t left = self.max_message_size - self.joined_size
        # Between two messages nobody knows yet what the next one will be.
        if self.compressed or (self.fragments == 0 and self.inflater is not None):
            left = deflated_size(left)
        return max(left, <size_t>MAX_CONTROL_PAYLOAD)

    cdef void release(self) noexcept:
        self.owner = None
        self.payload = NULL
        self.size = 0

    cdef MessageStatus feed_guarded(self, Frame* frame) except MESSAGE_RAISED:
        cdef MessageStatus status
        if self.fault == MESSAGE_RAISED:
            raise self.error
        if self.fault != MESSAGE_READY:
            return self.fault
        try:
            status = self.take(frame)
        except BaseException as error:
            self.error = error
            self.fail(MESSAGE_RAISED)
            raise
        if status > MESSAGE_MORE:
            self.fail(status)
        return status

    cdef MessageStatus take(self, Frame* frame) except MESSAGE_RAISED:
        cdef:
            uint8_t* data = frame.payload
            size_t n = frame.payload_size
            size_t left = self.max_message_size - self.joined_size
            bytes inflated = None
        if frame.rsv2 or frame.rsv3:
            return ERR_RSV_RESERVED
        if frame.rsv1:
            if self.inflater is None:
                return ERR_RSV1_UNEXPECTED
            if not frame.opcode:
                return ERR_RSV1_MISPLACED
        if not frame.opcode:
            if not self.fragments:
                return ERR_STRAY_CONTINUATION
        elif self.fragments:
            return ERR_MESSAGE_UNFINISHED
        else:
            self.idle = False
            self.opcode = frame.opcode
            self.compressed = frame.rsv1
            self.utf8_state = UTF8_ACCEPT

        if self.fragments == fragments_allowed(self.max_message_size):
            return ERR_TOO_MANY_FRAGMENTS
        self.fragments += 1
        if n > (deflated_size(left) if self.compressed else left):
            return ERR_MESSAGE_TOO_BIG
        if self.compressed:
            inflated = self.inflate(frame, left)
            data = <uint8_t*>PyBytes_AS_STRING(inflated)
            n = <size_t>len(inflated)
            if n > left:
                return ERR_MESSAGE_TOO_BIG
        if self.opcode == OPCODE_TEXT:
            self.utf8_state = utf8_validate(self.utf8_state, data, n)
            if self.utf8_state == UTF8_REJECT or (frame.fin and self.utf8_state != UTF8_ACCEPT):
                return ERR_TEXT_NOT_UTF8

        if not frame.fin:
            self.join(data, n, False)
            return MESSAGE_MORE
        if self.joined_size == 0:
            self.owner = inflated
            self.payload = data
            self.size = n
        else:
            self.join(data, n, True)
            self.owner = <object>self.joined
            self.payload = <uint8_t*>PyBytes_AS_STRING(<object>self.joined)
            self.size = self.joined_size
            Py_CLEAR(self.joined)
            self.joined_size = self.joined_capacity = 0
        self.fragments = 0
        self.idle = True
        return MESSAGE_READY

    cdef bytes inflate(self, Frame* frame, size_t max_size):
        view = PyMemoryView_FromMemory(<char*>frame.payload, <Py_ssize_t>frame.payload_size, PyBUF_READ)
        cdef bytes inflated = self.inflater.inflate(view, bool(frame.fin), max_size)
        # The memory is not ours: whoever kept the view gets an error now instead of something else's bytes later.
        view.release()
        if inflated is None:
            raise TypeError("inflate() returned None, expected bytes")
        return inflated

    cdef int join(self, const uint8_t* data, size_t n, bint last) except -1:
        """Append to `joined`, which has the exact size when `last`. The caller has checked that the sum is allowed."""
        cdef size_t size = self.joined_size + n
        cdef size_t capacity = self.joined_capacity
        cdef object joined
        if n == 0 and not last:
            return 0
        if last:
            capacity = size
        elif size > capacity:
            capacity = min(max(size, 2 * capacity), self.max_message_size)
        if self.joined == NULL:
            joined = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>capacity)
            Py_INCREF(joined)
            self.joined = <PyObject*>joined
        elif capacity != self.joined_capacity:
            _PyBytes_Resize(&self.joined, <Py_ssize_t>capacity)
        self.joined_capacity = capacity
        if n:
            memcpy(PyBytes_AS_STRING(<object>self.joined) + self.joined_size, data, n)
        self.joined_size = size
        return 0

    cdef void fail(self, MessageStatus fault) noexcept:
        self.fault = fault
        self.idle = False
        self.release()
        Py_CLEAR(self.joined)
        self.joined_size = self.joined_capacity = 0
