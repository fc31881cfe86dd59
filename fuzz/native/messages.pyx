# Messages out of a stream of frames, whole and cut anywhere, joined by the assembler and by a slow reference.
#
# Of the first byte of an input bit 1 agrees on compression, bits 2 and 3 choose max_message_size, bits 4 and 5
# max_frame_size, and bit 6 lets the room that is left limit the next frame, as the connection does.

include "stream.pxi"

from cpython.bytes cimport PyBytes_AS_STRING

from picows._messages cimport (
    ERR_MESSAGE_TOO_BIG, ERR_MESSAGE_UNFINISHED, ERR_RSV1_MISPLACED, ERR_RSV1_UNEXPECTED, ERR_RSV_RESERVED,
    ERR_STRAY_CONTINUATION, ERR_TEXT_NOT_UTF8, ERR_TOO_MANY_FRAGMENTS, MESSAGE_MORE, MESSAGE_RAISED, MESSAGE_READY,
    MessageAssembler, MessageStatus, message_status_close_code, message_status_sentence,
)

cdef uint64_t[4] MESSAGE_LIMITS = [0, 100, 1000, UINT64_MAX]
cdef uint64_t[4] FRAME_LIMITS = [125, 126, 70000, UINT64_MAX]

# What the pretended compression makes of a payload. A first byte of:
cdef enum:
    RAISES = 0xFE
    RETURNS_NONE = 0xFD
    RETURNS_TOO_MUCH = 0xFC


class Refused(Exception):
    pass


cdef size_t inflated_size(const uint8_t* p, size_t n) noexcept:
    cdef size_t i
    cdef size_t size = 0
    for i in range(n):
        size += p[i] & 3
    return size


cdef class Inflater:
    """Stands for decompression: of each byte it makes as many as its last two bits say."""

    def inflate(self, const uint8_t[:] data not None, bint fin, size_t max_size):
        cdef size_t n = <size_t>data.shape[0]
        cdef size_t i, _k
        cdef uint8_t* out
        cdef size_t size
        cdef bytes inflated
        if n and data[0] == RAISES:
            raise Refused
        if n and data[0] == RETURNS_NONE:
            return None
        if n and data[0] == RETURNS_TOO_MUCH and max_size < 2000:
            return bytes(max_size + 1)
        size = inflated_size(&data[0], n) if n else 0
        if size > max_size:
            raise Refused
        inflated = bytes(size)
        out = <uint8_t*>PyBytes_AS_STRING(inflated)
        for i in range(n):
            for _k in range(data[i] & 3):
                out[0] = data[i]
                out += 1
        return inflated


cdef struct Reference:
    uint8_t* joined         # the message so far
    size_t size
    size_t fragments
    uint8_t opcode
    bint compressed
    bint inflates
    size_t max_size


cdef size_t room_for_deflated(size_t n) noexcept:
    return n + n // 8 + n // 64 + 64


cdef size_t reference_room(const Reference* r) noexcept:
    cdef size_t left = r.max_size - r.size
    if r.compressed if r.fragments else r.inflates:
        left = room_for_deflated(left)
    return left if left > 125 else 125


cdef int reference_feed(Reference* r, const Frame* frame) noexcept:
    """The verdict on a data frame; MESSAGE_RAISED for what the inflater refuses, or returns in error."""
    cdef size_t left = r.max_size - r.size
    cdef size_t n = frame.payload_size
    cdef size_t i, _k
    cdef int text
    if frame.rsv2 or frame.rsv3:
        return ERR_RSV_RESERVED
    if frame.rsv1 and not r.inflates:
        return ERR_RSV1_UNEXPECTED
    if frame.rsv1 and frame.opcode == 0:
        return ERR_RSV1_MISPLACED
    if frame.opcode == 0 and r.fragments == 0:
        return ERR_STRAY_CONTINUATION
    if frame.opcode and r.fragments:
        return ERR_MESSAGE_UNFINISHED
    if frame.opcode:
        r.opcode = frame.opcode
        r.compressed = frame.rsv1
    if r.fragments == 1024 + r.max_size // 16:
        return ERR_TOO_MANY_FRAGMENTS
    r.fragments += 1
    if n > (room_for_deflated(left) if r.compressed else left):
        return ERR_MESSAGE_TOO_BIG
    if r.compressed:
        if n and (frame.payload[0] == RAISES or frame.payload[0] == RETURNS_NONE):
            return MESSAGE_RAISED
        if n and frame.payload[0] == RETURNS_TOO_MUCH and left < 2000:
            return ERR_MESSAGE_TOO_BIG
        if inflated_size(frame.payload, n) > left:
            return MESSAGE_RAISED
        for i in range(n):
            for _k in range(frame.payload[i] & 3):
                r.joined[r.size] = frame.payload[i]
                r.size += 1
    else:
        for i in range(n):
            r.joined[r.size] = frame.payload[i]
            r.size += 1
    if r.opcode == 1:
        text = reference_text(r.joined, r.size)
        if text == REFERENCE_TEXT_BAD or (frame.fin and text != REFERENCE_TEXT_WHOLE):
            return ERR_TEXT_NOT_UTF8
    return MESSAGE_READY if frame.fin else MESSAGE_MORE


cdef int feed(MessageAssembler assembler, Frame* frame) except -2:
    cdef int status
    try:
        status = assembler.feed(frame)
    except (Refused, TypeError):
        status = MESSAGE_RAISED
    return status


cdef int check_control(MessageAssembler assembler, Frame* frame, bint inflates) except -2:
    cdef int expected = MESSAGE_MORE
    cdef int status = assembler.check_control(frame)
    if frame.rsv1:
        expected = ERR_RSV1_MISPLACED if inflates else ERR_RSV1_UNEXPECTED
    if frame.rsv2 or frame.rsv3:
        expected = ERR_RSV_RESERVED
    assert status == expected
    return status


cdef int take(MessageAssembler assembler, Frame* frame, Reference* r) except -2:
    """One data frame for both; the status they agree on."""
    cdef int expected = reference_feed(r, frame)
    cdef int status = feed(assembler, frame)
    assert status == expected, f"the frame got {status}, expected {expected}"
    if status == MESSAGE_READY:
        assert assembler.opcode == r.opcode
        assert assembler.size == r.size
        assert memcmp(assembler.payload, r.joined, r.size) == 0
        if assembler.owner is None:
            assert assembler.payload == frame.payload
        else:
            assert assembler.payload == <uint8_t*>PyBytes_AS_STRING(assembler.owner)
            assert assembler.size == <size_t>len(assembler.owner)
        assembler.release()
        r.size = r.fragments = 0
    elif status == MESSAGE_MORE:
        assert assembler.joined_size == r.size
        assert r.size <= assembler.joined_capacity <= r.max_size
    else:
        assert assembler.joined == NULL
        assert feed(assembler, frame) == status, "the fault was forgotten"
        return status
    assert assembler.room() == reference_room(r)
    return status


cdef int told(int status) except -1:
    cdef uint16_t code = message_status_close_code(<MessageStatus>status)
    cdef bint fault = status > MESSAGE_MORE
    assert (code == 1002 or code == 1007 or code == 1009) if fault else code == 0
    assert (message_status_sentence(<MessageStatus>status)[0] != 0) == fault
    return 0


cdef int read_to_the_end(Stream* s, MessageAssembler assembler, Reference* r, const uint8_t* data, bint whole) except -2:
    """The last status of the assembler, with MESSAGE_READY for a stream that was fine, or that the codec gave up."""
    cdef uint64_t frame_limit = s.limit
    cdef size_t left, n
    cdef size_t turn = 0
    cdef int status
    if data[STREAM_KIND] & 64:
        set_limit(s, min(frame_limit, <uint64_t>assembler.room()))
    while s.arrived < s.size:
        left = s.size if whole else <size_t>data[STREAM_PIECES + turn % 3] + 1
        turn += 1
        while left and s.arrived < s.size:
            n = receive(s, left)
            assert n, "the reader has no room for what it needs"
            left -= n
            while next_frame(s):
                if s.reader.frame.opcode & OPCODE_CONTROL_BIT:
                    status = check_control(assembler, &s.reader.frame, r.inflates)
                else:
                    status = take(assembler, &s.reader.frame, r)
                told(status)
                if status != MESSAGE_READY and status != MESSAGE_MORE:
                    return status
                if data[STREAM_KIND] & 64:
                    set_limit(s, min(frame_limit, <uint64_t>assembler.room()))
            if s.status != STATUS_NEED_MORE:
                return MESSAGE_READY
            make_room(s)
    return MESSAGE_READY


cdef int read_all(const uint8_t* data, size_t size, bint whole, Stream* s) except -2:
    cdef uint64_t max_size = MESSAGE_LIMITS[data[STREAM_KIND] >> 2 & 3]
    cdef Reference r
    cdef int status
    r.size = r.fragments = 0
    r.inflates = data[STREAM_KIND] >> 1 & 1
    r.compressed = False
    r.max_size = <size_t>min(max_size, <uint64_t>(SIZE_MAX // 2 - 1024))
    # All that may come out, for a frame that is refused as well.
    r.joined = <uint8_t*>malloc(3 * size)
    if r.joined == NULL:
        raise MemoryError
    open_stream(s, data, size, FRAME_LIMITS[data[STREAM_KIND] >> 4 & 3], whole)
    assembler = MessageAssembler(max_size, Inflater() if r.inflates else None)
    status = read_to_the_end(s, assembler, &r, data, whole)
    close_stream(s)
    free(r.joined)
    return status


cdef api int check(const uint8_t* data, size_t size) except -1:
    cdef Stream whole, cut
    cdef int status
    if size < STREAM_OPTIONS:
        return 0
    status = read_all(data, size, True, &whole)
    assert read_all(data, size, False, &cut) == status, "cut, the messages got another verdict"
    assert cut.position == whole.position, "cut, other frames came out"
    assert cut.status == whole.status, "cut, another fault was found"
    return 0
