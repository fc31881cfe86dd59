"""The frame codec on plain bytes, for tests and fuzzing; the connection uses the C functions of _codec.pxd, as this does.

It decides nothing about frames. It owns memory the way a connection does: a frame that is incomplete moves to a buffer
of exactly its size as soon as that is known. A reader's blocks come straight from malloc(), so that a sanitizer guards
both their ends.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from picows._codec cimport (
    ERR_CLOSE_CODE, ERR_CLOSE_REASON, ERR_CLOSE_SIZE, ERR_CONTROL_FRAGMENTED, ERR_CONTROL_TOO_LONG, ERR_FRAME_TOO_BIG,
    ERR_LENGTH_NOT_MINIMAL, ERR_LENGTH_TOP_BIT, ERR_MASK_MISSING, ERR_MASK_UNEXPECTED, ERR_RESERVED_OPCODE, Frame,
    MAX_HEADER_SIZE, Reader, STATUS_FRAME, STATUS_NEED_MORE, Status, UTF8_ACCEPT, UTF8_REJECT, close_code_may_travel,
    first_byte, header_size, mask_copy, parse_close_payload, reader_attach, reader_commit, reader_init, reader_needed,
    reader_next, reader_space, reader_unread, status_close_code, status_sentence, utf8_validate, write_close_payload,
    write_header,
)

from collections import namedtuple


STATUS_NAMES = {
    ERR_RESERVED_OPCODE: "ERR_RESERVED_OPCODE",
    ERR_CONTROL_FRAGMENTED: "ERR_CONTROL_FRAGMENTED",
    ERR_CONTROL_TOO_LONG: "ERR_CONTROL_TOO_LONG",
    ERR_MASK_MISSING: "ERR_MASK_MISSING",
    ERR_MASK_UNEXPECTED: "ERR_MASK_UNEXPECTED",
    ERR_LENGTH_NOT_MINIMAL: "ERR_LENGTH_NOT_MINIMAL",
    ERR_LENGTH_TOP_BIT: "ERR_LENGTH_TOP_BIT",
    ERR_FRAME_TOO_BIG: "ERR_FRAME_TOO_BIG",
    ERR_CLOSE_SIZE: "ERR_CLOSE_SIZE",
    ERR_CLOSE_CODE: "ERR_CLOSE_CODE",
    ERR_CLOSE_REASON: "ERR_CLOSE_REASON",
}

ParsedFrame = namedtuple("ParsedFrame", "opcode fin rsv1 rsv2 rsv3 payload tail_size last_in_buffer")


class CodecError(Exception):
    """The peer broke the protocol.

    status: name of the fault, one of STATUS_NAMES; close_code: what to tell the peer (RFC 6455 section 7.4.1);
    sentence: what came and what was expected.
    """

    def __init__(self, status, close_code, sentence):
        super().__init__(status, close_code, sentence)
        self.status = status
        self.close_code = close_code
        self.sentence = sentence

    def __str__(self):
        return f"{self.sentence} ({self.status}, close code {self.close_code})"


cdef object error_of(Status status):
    return CodecError(STATUS_NAMES[status], status_close_code(status), status_sentence(status).decode("ascii"))


cdef uint32_t key_of(bytes key) except? 0:
    cdef uint32_t value
    if len(key) != 4:
        raise ValueError(f"received a mask key of {len(key)} bytes, expected 4")
    memcpy(&value, PyBytes_AS_STRING(key), 4)
    return value


cdef class FrameReader:
    """An incremental reader of the frames one peer sends (RFC 6455 section 5).

    expect_masked: the peer is a client. max_frame_size: limit of a frame's payload in bytes.
    capacity: size in bytes of the buffer to receive into while no frame's size is known, at least 14.
    """

    cdef Reader reader
    cdef size_t idle_capacity
    cdef readonly object error
    """The CodecError met behind the frames that feed() returned, or None."""

    def __cinit__(self, bint expect_masked, *, uint64_t max_frame_size=10 * 1024 * 1024, size_t capacity=16 * 1024):
        if capacity < MAX_HEADER_SIZE:
            raise ValueError(f"received a capacity of {capacity} bytes, expected at least {MAX_HEADER_SIZE}")
        reader_init(&self.reader, expect_masked, max_frame_size)
        self.idle_capacity = capacity
        self.use_buffer_of(capacity)

    def __dealloc__(self):
        free(self.reader.data)

    @property
    def unread(self):
        """How many bytes received belong to no frame returned yet."""
        return reader_unread(&self.reader)

    @property
    def needed(self):
        """Size in bytes of the header and payload of the incomplete frame; 0 while its header is incomplete."""
        return reader_needed(&self.reader)

    cdef int use_buffer_of(self, size_t capacity) except -1:
        cdef uint8_t* old = self.reader.data
        cdef uint8_t* data
        if capacity == self.reader.capacity:
            reader_attach(&self.reader, old, capacity)
            return 0
        data = <uint8_t*>malloc(capacity)
        if data == NULL:
            raise MemoryError(f"no buffer of {capacity} bytes")
        reader_attach(&self.reader, data, capacity)
        free(old)
        return 0

    def feed(self, bytes data not None):
        """Take bytes received and return the frames that are complete now, a list of ParsedFrame.

        A fault does not hide the frames in front of it: they are returned, `error` is set, and the next call raises it.
        Raises CodecError in that case, MemoryError when there is no memory for a frame.
        """
        cdef const uint8_t* source = <const uint8_t*>PyBytes_AS_STRING(data)
        cdef size_t left = len(data)
        cdef uint8_t* space
        cdef size_t n
        cdef Status status
        cdef Frame* frame = &self.reader.frame
        cdef list frames = []
        if self.error is not None:
            raise self.error
        while left:
            space = reader_space(&self.reader, &n)
            n = min(n, left)
            memcpy(space, source, n)
            reader_commit(&self.reader, n)
            source += n
            left -= n
            status = reader_next(&self.reader)
            while status == STATUS_FRAME:
                frames.append(ParsedFrame(
                    frame.opcode, frame.fin, frame.rsv1, frame.rsv2, frame.rsv3,
                    PyBytes_FromStringAndSize(<char*>frame.payload, <Py_ssize_t>frame.payload_size),
                    frame.tail_size, frame.last_in_buffer,
                ))
                status = reader_next(&self.reader)
            if status != STATUS_NEED_MORE:
                if reader_next(&self.reader) != status:
                    raise AssertionError("reader_next() forgot the fault it reported")
                self.error = error_of(status)
                break
            self.use_buffer_of(reader_needed(&self.reader) or self.idle_capacity)
        return frames


def frame_header(uint8_t opcode, size_t payload_size, *, bint fin=True, bint rsv1=False, bint rsv2=False,
                 bint rsv3=False, bytes mask_key=None):
    """The header of a frame (RFC 6455 section 5.2), as bytes; masked when mask_key, 4 bytes, is given.

    Nothing is checked but the ranges, so that faulty frames can be made too: ValueError for an opcode over 15 or a key
    of another size, OverflowError for numbers that do not fit.
    """
    cdef bint masked = mask_key is not None
    cdef uint32_t key = key_of(mask_key) if masked else 0
    cdef size_t size = header_size(payload_size, masked)
    cdef bytes header = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
    if opcode > 15:
        raise ValueError(f"received opcode {opcode}, expected 0 to 15")
    cdef size_t written = write_header(
        <uint8_t*>PyBytes_AS_STRING(header), first_byte(opcode, fin, rsv1, rsv2, rsv3), payload_size, masked, key)
    if written != size:
        raise AssertionError(f"write_header() wrote {written} bytes, header_size() said {size}")
    return header


def write_frame(uint8_t opcode, bytes payload not None=b"", *, bint fin=True, bint rsv1=False, bint rsv2=False,
                bint rsv3=False, bytes mask_key=None):
    """A whole frame, as bytes; the arguments and errors of frame_header()."""
    cdef bytes header = frame_header(
        opcode, len(payload), fin=fin, rsv1=rsv1, rsv2=rsv2, rsv3=rsv3, mask_key=mask_key)
    return header + (payload if mask_key is None else mask(payload, mask_key))


def mask(bytes data not None, bytes key not None):
    """The data masked, or unmasked, with the 4 bytes of `key` (RFC 6455 section 5.3). ValueError for another size."""
    cdef bytes masked = PyBytes_FromStringAndSize(NULL, len(data))
    mask_copy(
        <uint8_t*>PyBytes_AS_STRING(masked), <const uint8_t*>PyBytes_AS_STRING(data), <size_t>len(data), key_of(key))
    return masked


def mask_into(target, size_t target_offset, source, size_t source_offset, size_t size, bytes key not None):
    """Mask `size` bytes of the buffer `source` into the buffer `target`, each from its offset in bytes.

    The two may be the same place. Raises ValueError when a range leaves its buffer, when the ranges overlap without
    being the same, or when the key is not of 4 bytes.
    """
    cdef Py_buffer dst, src
    cdef uint8_t* to
    cdef const uint8_t* origin
    cdef uint32_t key32 = key_of(key)
    PyObject_GetBuffer(source, &src, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(target, &dst, PyBUF_WRITABLE)
        try:
            for offset, length in ((target_offset, dst.len), (source_offset, src.len)):
                if offset + size > length:
                    raise ValueError(f"received {size} bytes at offset {offset}, expected a range within {length}")
            to = <uint8_t*>dst.buf + target_offset
            origin = <const uint8_t*>src.buf + source_offset
            if to != origin and to < origin + size and origin < to + size:
                raise ValueError("received overlapping ranges, expected the same range or disjoint ones")
            mask_copy(to, origin, size, key32)
        finally:
            PyBuffer_Release(&dst)
    finally:
        PyBuffer_Release(&src)


def write_close(uint16_t code, bytes reason not None=b""):
    """The payload of a CLOSE frame (RFC 6455 section 5.5.1); code 0 stands for an empty one. Nothing is checked."""
    cdef bytes payload = PyBytes_FromStringAndSize(NULL, len(reason) + 2)
    cdef size_t size = write_close_payload(
        <uint8_t*>PyBytes_AS_STRING(payload), code, <const uint8_t*>PyBytes_AS_STRING(reason), <size_t>len(reason))
    return payload[:<Py_ssize_t>size]


def parse_close(bytes payload not None):
    """Code and reason of a CLOSE payload; (0, b"") when empty. Raises CodecError (RFC 6455 sections 5.5.1 and 7.4)."""
    cdef uint16_t code
    cdef Status status = parse_close_payload(<const uint8_t*>PyBytes_AS_STRING(payload), <size_t>len(payload), &code)
    if status != STATUS_FRAME:
        raise error_of(status)
    return code, payload[2:]


def may_travel(uint32_t code):
    """Whether an endpoint may send this close code (RFC 6455 section 7.4)."""
    return close_code_may_travel(code)


def is_utf8(*pieces):
    """Whether the pieces joined are UTF-8 (RFC 3629): True, False, or None when they end inside a character."""
    cdef uint32_t state = UTF8_ACCEPT
    cdef bytes piece
    if None in pieces:
        raise TypeError("received None, expected bytes")
    for piece in pieces:
        state = utf8_validate(state, <const uint8_t*>PyBytes_AS_STRING(piece), <size_t>len(piece))
    if state == UTF8_ACCEPT:
        return True
    return False if state == UTF8_REJECT else None
