# A stream of frames that arrives in pieces, as the codec reads it and as reference.h does.

from libc.stdint cimport SIZE_MAX, UINT64_MAX, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from picows._codec cimport (
    ERR_CLOSE_CODE, ERR_CLOSE_REASON, ERR_CLOSE_SIZE, ERR_CONTROL_FRAGMENTED, ERR_CONTROL_TOO_LONG, ERR_FRAME_TOO_BIG,
    ERR_LENGTH_NOT_MINIMAL, ERR_LENGTH_TOP_BIT, ERR_MASK_MISSING, ERR_MASK_UNEXPECTED, ERR_RESERVED_OPCODE, Frame,
    MAX_HEADER_SIZE, OPCODE_CONTROL_BIT, Reader, STATUS_FRAME, STATUS_NEED_MORE, reader_attach, reader_commit, reader_init,
    reader_limit, reader_needed, reader_next, reader_space, reader_unread,
)

cdef extern from "reference.h" nogil:
    enum:
        REFERENCE_FRAME, REFERENCE_MORE, REFERENCE_RESERVED_OPCODE, REFERENCE_CONTROL_FRAGMENTED, REFERENCE_CONTROL_TOO_LONG,
        REFERENCE_MASK_MISSING, REFERENCE_MASK_UNEXPECTED, REFERENCE_LENGTH_NOT_MINIMAL, REFERENCE_LENGTH_TOP_BIT,
        REFERENCE_FRAME_TOO_BIG, REFERENCE_CLOSE_SIZE, REFERENCE_CLOSE_CODE, REFERENCE_CLOSE_REASON, REFERENCE_VERDICTS,
        REFERENCE_TEXT_WHOLE, REFERENCE_TEXT_BAD
    struct reference_frame:
        size_t header_size
        uint64_t size
        uint8_t key[4]
        uint8_t opcode, fin, rsv1, rsv2, rsv3
    int reference_look(const uint8_t* p, size_t n, int masked, uint64_t limit, reference_frame* frame) noexcept
    int reference_close(const uint8_t* p, size_t n) noexcept
    int reference_text(const uint8_t* p, size_t n) noexcept
    int reference_is_masked(const uint8_t* a, const uint8_t* b, size_t n, const uint8_t* key) noexcept

cdef int[REFERENCE_VERDICTS] STATUS_OF
STATUS_OF[REFERENCE_FRAME] = STATUS_FRAME
STATUS_OF[REFERENCE_MORE] = STATUS_NEED_MORE
STATUS_OF[REFERENCE_RESERVED_OPCODE] = ERR_RESERVED_OPCODE
STATUS_OF[REFERENCE_CONTROL_FRAGMENTED] = ERR_CONTROL_FRAGMENTED
STATUS_OF[REFERENCE_CONTROL_TOO_LONG] = ERR_CONTROL_TOO_LONG
STATUS_OF[REFERENCE_MASK_MISSING] = ERR_MASK_MISSING
STATUS_OF[REFERENCE_MASK_UNEXPECTED] = ERR_MASK_UNEXPECTED
STATUS_OF[REFERENCE_LENGTH_NOT_MINIMAL] = ERR_LENGTH_NOT_MINIMAL
STATUS_OF[REFERENCE_LENGTH_TOP_BIT] = ERR_LENGTH_TOP_BIT
STATUS_OF[REFERENCE_FRAME_TOO_BIG] = ERR_FRAME_TOO_BIG
STATUS_OF[REFERENCE_CLOSE_SIZE] = ERR_CLOSE_SIZE
STATUS_OF[REFERENCE_CLOSE_CODE] = ERR_CLOSE_CODE
STATUS_OF[REFERENCE_CLOSE_REASON] = ERR_CLOSE_REASON

# The first bytes of an input of codec.pyx and messages.pyx. What follows them comes from the wire.
cdef enum:
    STREAM_KIND             # bit 0: masked; what the others choose is told there
    STREAM_CAPACITY         # of a buffer for bytes of no known frame, less MAX_HEADER_SIZE
    STREAM_PIECES           # three bytes, each the size of a piece less 1, taken in turn
    STREAM_OPTIONS = 5

cdef struct Stream:
    Reader reader
    size_t idle_capacity
    const uint8_t* wire
    size_t size
    size_t arrived          # how much of the wire the reader has been given
    size_t position         # where the next frame begins
    uint64_t limit
    bint masked
    int status              # the reader's last answer
    reference_frame expected


cdef int use_buffer(Stream* s, size_t capacity) except -1:
    cdef uint8_t* old = s.reader.data
    cdef uint8_t* data
    if capacity == s.reader.capacity:
        reader_attach(&s.reader, old, capacity)
        return 0
    data = <uint8_t*>malloc(capacity)
    if data == NULL:
        raise MemoryError(f"no buffer of {capacity} bytes")
    reader_attach(&s.reader, data, capacity)
    free(old)
    return 0


cdef int open_stream(Stream* s, const uint8_t* data, size_t size, uint64_t limit, bint whole) except -1:
    """Of an input; `whole` means that the buffer takes all of it at once."""
    s.wire = data + STREAM_OPTIONS
    s.size = size - STREAM_OPTIONS
    s.arrived = s.position = 0
    s.limit = limit
    s.masked = data[STREAM_KIND] & 1
    s.status = STATUS_NEED_MORE
    s.idle_capacity = MAX_HEADER_SIZE + (s.size if whole else data[STREAM_CAPACITY])
    reader_init(&s.reader, s.masked, limit)
    return use_buffer(s, s.idle_capacity)


cdef void close_stream(Stream* s) noexcept:
    free(s.reader.data)


cdef void set_limit(Stream* s, uint64_t limit) noexcept:
    s.limit = limit
    reader_limit(&s.reader, limit)


cdef size_t receive(Stream* s, size_t n) noexcept:
    """Up to n bytes arrive, as many as there is room for; how many."""
    cdef size_t room
    cdef uint8_t* space = reader_space(&s.reader, &room)
    n = min(n, min(room, s.size - s.arrived))
    memcpy(space, s.wire + s.arrived, n)
    reader_commit(&s.reader, n)
    s.arrived += n
    return n


cdef int next_frame(Stream* s) except -1:
    """Whether there is a frame; it is then compared, byte by byte. Otherwise s.status says why there is none."""
    cdef Frame* frame = &s.reader.frame
    cdef reference_frame* expected = &s.expected
    cdef reference_frame behind
    cdef const uint8_t* p = s.wire + s.position
    cdef size_t n = s.arrived - s.position
    cdef int verdict
    s.status = reader_next(&s.reader)
    verdict = reference_look(p, n, s.masked, s.limit, expected)
    assert s.status == STATUS_OF[verdict], f"frame at {s.position}: {s.status}, expected {STATUS_OF[verdict]}"
    if s.status != STATUS_FRAME:
        assert reader_unread(&s.reader) == n
        if s.status == STATUS_NEED_MORE:
            assert reader_needed(&s.reader) == (expected.header_size + expected.size if expected.header_size else 0)
        return False
    assert frame.opcode == expected.opcode
    assert frame.fin == expected.fin
    assert frame.rsv1 == expected.rsv1
    assert frame.rsv2 == expected.rsv2
    assert frame.rsv3 == expected.rsv3
    assert frame.payload_size == expected.size
    assert reference_is_masked(frame.payload, p + expected.header_size, frame.payload_size, expected.key)
    s.position += expected.header_size + <size_t>expected.size
    assert frame.tail_size == s.arrived - s.position == reader_unread(&s.reader)
    verdict = reference_look(s.wire + s.position, frame.tail_size, s.masked, s.limit, &behind)
    assert frame.last_in_buffer == (verdict != REFERENCE_FRAME)
    return True


cdef int make_room(Stream* s) except -1:
    """What a connection does when the reader needs more: a buffer of the size of the frame, if that is known."""
    # The wire ends earlier than a frame that is announced may.
    cdef size_t needed = min(reader_needed(&s.reader), s.size + MAX_HEADER_SIZE)
    return use_buffer(s, needed if needed else s.idle_capacity)
