# Frames of any bytes, whole and cut anywhere. Of the first byte of an input bits 1 to 4 choose max_frame_size.

include "stream.pxi"

from libc.stdint cimport uint32_t

from picows._codec cimport (
    Status, first_byte, header_size, parse_close_payload, status_close_code, status_sentence, write_close_payload,
    write_header,
)

cdef uint64_t[16] LIMITS = [
    0, 1, 124, 125, 126, 127, 300, 5000, 65535, 65536, 65537, 0x100000, 0x100000000, 0x7FFFFFFFFFFFFFFFULL,
    0x8000000000000000ULL, UINT64_MAX,
]


cdef int write_again(Stream* s, size_t position) except -1:
    """The frame just read, written by us, has the bytes that came: no other header is accepted."""
    cdef Frame* frame = &s.reader.frame
    cdef uint8_t written[MAX_HEADER_SIZE]
    cdef uint8_t payload[125]
    cdef size_t size = header_size(frame.payload_size, s.masked)
    cdef uint16_t code
    cdef uint32_t key
    memcpy(&key, s.expected.key, 4)
    assert size == s.expected.header_size
    assert size == write_header(
        written, first_byte(frame.opcode, frame.fin, frame.rsv1, frame.rsv2, frame.rsv3), frame.payload_size, s.masked, key)
    assert memcmp(written, s.wire + position, size) == 0
    if frame.opcode == 8:
        assert parse_close_payload(frame.payload, frame.payload_size, &code) == STATUS_FRAME
        assert write_close_payload(payload, code, frame.payload + 2, max(frame.payload_size, <size_t>2) - 2) == frame.payload_size
        assert memcmp(payload, frame.payload, frame.payload_size) == 0
    return 0


cdef int check_close(const uint8_t* p, size_t n) except -1:
    cdef uint16_t code = 7
    cdef Status status = parse_close_payload(p, n, &code)
    assert status == STATUS_OF[reference_close(p, n)]
    if status == STATUS_FRAME:
        assert code == (p[0] * 256 + p[1] if n else 0)
    return 0


cdef int check_header(const uint8_t* p, size_t n, bint masked) except -1:
    """A header for a payload of any size, also of one that is too large to be an input: the reference reads it back."""
    cdef uint8_t header[MAX_HEADER_SIZE]
    cdef reference_frame read
    cdef uint64_t size
    cdef uint32_t key = 0x01020304
    cdef size_t written
    if n < sizeof(size):
        return 0
    memcpy(&size, p, sizeof(size))
    size &= SIZE_MAX // 4
    size >>= p[0] & 63
    written = write_header(header, first_byte(2, True, False, False, False), <size_t>size, masked, key)
    assert written == header_size(<size_t>size, masked)
    reference_look(header, written, masked, UINT64_MAX, &read)
    assert read.header_size == written
    assert read.size == size
    assert not masked or memcmp(read.key, &key, 4) == 0
    return 0


cdef int told(int status) except -1:
    """A fault has a close code and a sentence, which what is none has not."""
    cdef uint16_t code = status_close_code(<Status>status)
    cdef bint fault = status != STATUS_FRAME and status != STATUS_NEED_MORE
    assert (code == 1002 or code == 1007 or code == 1009) if fault else code == 0
    assert (status_sentence(<Status>status)[0] != 0) == fault
    return 0


cdef int read_to_the_end(Stream* s, const uint8_t* pieces, bint whole) except -1:
    cdef size_t left, n, position
    cdef size_t turn = 0
    while s.arrived < s.size:
        left = s.size if whole else <size_t>pieces[turn % 3] + 1
        turn += 1
        while left and s.arrived < s.size:
            n = receive(s, left)
            assert n, "the reader has no room for what it needs"
            left -= n
            position = s.position
            while next_frame(s):
                write_again(s, position)
                position = s.position
            if s.status != STATUS_NEED_MORE:
                next_frame(s)   # which finds the same again
                return 0
            make_room(s)
    return 0


cdef api int check(const uint8_t* data, size_t size) except -1:
    cdef Stream whole, cut
    cdef uint64_t limit
    if size < STREAM_OPTIONS:
        return 0
    limit = LIMITS[data[STREAM_KIND] >> 1 & 15]
    open_stream(&whole, data, size, limit, True)
    open_stream(&cut, data, size, limit, False)
    read_to_the_end(&whole, data + STREAM_PIECES, True)
    read_to_the_end(&cut, data + STREAM_PIECES, False)
    assert cut.position == whole.position, "cut, other frames came out"
    assert cut.status == whole.status, "cut, another fault was found"
    told(whole.status)
    check_close(data + STREAM_OPTIONS, size - STREAM_OPTIONS)
    check_header(data + STREAM_OPTIONS, size - STREAM_OPTIONS, whole.masked)
    close_stream(&whole)
    close_stream(&cut)
    return 0
