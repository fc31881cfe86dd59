# Framing of RFC 6455 section 5, as inline functions over borrowed memory: bytes in, frames out, and the way back.
# In here: no Python object, no allocation, no asyncio, nothing raised. A fault is a Status.

from libc.stdint cimport SIZE_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset


cdef extern from "_native/mask.h" nogil:
    # dst[i] = src[i] ^ key[i % 4]. dst == src is allowed, any other overlap is not.
    # The key is its four bytes as they lie in memory.
    void mask_copy "picows_mask" (uint8_t* dst, const uint8_t* src, size_t n, uint32_t key) noexcept

cdef extern from "_native/utf8.h" nogil:
    enum:
        UTF8_REJECT "PICOWS_UTF8_REJECT"
        UTF8_ACCEPT "PICOWS_UTF8_ACCEPT"
    # The validator's state after n more bytes; starts with UTF8_ACCEPT.
    uint32_t utf8_validate "picows_utf8" (uint32_t state, const uint8_t* p, size_t n) noexcept


cdef enum Status:
    STATUS_FRAME = 0
    STATUS_NEED_MORE = 1
    ERR_RESERVED_OPCODE
    ERR_CONTROL_FRAGMENTED
    ERR_CONTROL_TOO_LONG
    ERR_MASK_MISSING
    ERR_MASK_UNEXPECTED
    ERR_LENGTH_NOT_MINIMAL
    ERR_LENGTH_TOP_BIT
    ERR_FRAME_TOO_BIG
    ERR_CLOSE_SIZE
    ERR_CLOSE_CODE
    ERR_CLOSE_REASON

cdef enum:
    MAX_HEADER_SIZE = 14        # 2 + 8 of length + 4 of mask key
    MAX_CONTROL_PAYLOAD = 125   # RFC 6455 section 5.5

cdef enum:
    OPCODE_CLOSE = 8
    OPCODE_CONTROL_BIT = 8
    FIN_BIT = 0x80
    RSV1_BIT = 0x40
    KNOWN_OPCODES = 0b0000_0111_0000_0111   # bit n is set when opcode n is defined (section 5.2)


cdef struct Frame:
    uint8_t* payload        # inside the reader's buffer
    size_t payload_size
    size_t tail_size        # bytes already received behind this frame
    uint8_t opcode
    bint fin, rsv1, rsv2, rsv3
    bint last_in_buffer     # no further whole and sound frame is waiting behind this one

# A complete, accepted header.
cdef struct Header:
    size_t size             # of the header itself; 0: none is known
    size_t payload_size
    uint32_t key            # as its four bytes lie in memory; 0 when frames come unmasked
    uint8_t first           # FIN, RSV1..3, opcode

# The bytes received and not yet parsed are data[start:end]. The memory is borrowed: a reader does not allocate or free.
cdef struct Reader:
    uint8_t* data
    size_t capacity, start, end
    uint64_t max_frame_size
    bint expect_masked
    Frame frame
    # private
    Header header           # of the frame at `start`, once it is known


# From the next frame on another limit holds, for a frame too whose header has been looked at.
cdef inline void reader_limit(Reader* r, uint64_t max_frame_size) noexcept nogil:
    # Half the address space: the sum of header and payload cannot overflow, nor become a negative Py_ssize_t.
    r.max_frame_size = min(max_frame_size, <uint64_t>(SIZE_MAX // 2 - MAX_HEADER_SIZE))
    r.header.size = 0


# Prepare a reader without a buffer. max_frame_size limits the payload of every frame, in bytes.
cdef inline void reader_init(Reader* r, bint expect_masked, uint64_t max_frame_size) noexcept nogil:
    memset(r, 0, sizeof(Reader))
    r.expect_masked = expect_masked != 0
    reader_limit(r, max_frame_size)


cdef inline size_t reader_unread(const Reader* r) noexcept nogil:
    return r.end - r.start


# Move the unread bytes to the start of `data`, which holds at least that many, and go on there. It may be, or overlap,
# the present buffer. The payload of the last frame stays where it was.
cdef inline void reader_attach(Reader* r, uint8_t* data, size_t capacity) noexcept nogil:
    cdef size_t unread = reader_unread(r)
    if unread and data != r.data + r.start:
        memmove(data, r.data + r.start, unread)
    r.data = data
    r.capacity = capacity
    r.start = 0
    r.end = unread


# Size of header and payload of the frame which the last reader_next() left incomplete; 0 while its header is.
cdef inline size_t reader_needed(const Reader* r) noexcept nogil:
    return r.header.size + r.header.payload_size if r.header.size else 0


# Where to receive up to n bytes: behind all that came, so that no payload delivered is overwritten. To begin at the
# front again, attach the same buffer, or another one while somebody still looks at a payload.
cdef inline uint8_t* reader_space(const Reader* r, size_t* n) noexcept nogil:
    n[0] = r.capacity - r.end
    return r.data + r.end


# n bytes, no more than reader_space() offered, were received.
cdef inline void reader_commit(Reader* r, size_t n) noexcept nogil:
    r.end += n


# The extended payload length (section 5.2), of which n bytes are there. A fault is found by the first byte that makes
# it certain: whatever is missing, the length is between `low` and `high`.
cdef inline Status _parse_long_size(
    const uint8_t* p, size_t n, size_t width, uint64_t max_frame_size, uint64_t* size
) noexcept nogil:
    cdef size_t got = min(n, width)
    cdef size_t i
    cdef int missing
    cdef uint64_t low = 0
    cdef uint64_t high
    if got == 0:
        return STATUS_NEED_MORE
    for i in range(got):
        low = low << 8 | p[i]
    missing = <int>(width - got) * 8
    low <<= missing
    high = low | ((<uint64_t>1 << missing) - 1)
    if high <= (MAX_CONTROL_PAYLOAD if width == 2 else 0xFFFF):
        return ERR_LENGTH_NOT_MINIMAL
    if low >> 63:
        return ERR_LENGTH_TOP_BIT
    if low > max_frame_size:
        return ERR_FRAME_TOO_BIG
    size[0] = low
    return STATUS_FRAME if missing == 0 else STATUS_NEED_MORE


# The header in the first of the n bytes at p. STATUS_FRAME: *header is complete; otherwise its size is untouched.
cdef inline Status parse_header(
    const uint8_t* p, size_t n, bint expect_masked, uint64_t max_frame_size, Header* header
) noexcept nogil:
    cdef uint8_t first, opcode
    cdef uint64_t payload_size
    cdef size_t size = 2
    cdef size_t width
    cdef Status status
    if n == 0:
        return STATUS_NEED_MORE
    first = p[0]
    opcode = first & 0x0F
    if not (KNOWN_OPCODES >> opcode) & 1:
        return ERR_RESERVED_OPCODE
    if opcode & OPCODE_CONTROL_BIT and not first & 0x80:
        return ERR_CONTROL_FRAGMENTED
    if n == 1:
        return STATUS_NEED_MORE
    if (p[1] >> 7) != expect_masked:
        return ERR_MASK_MISSING if expect_masked else ERR_MASK_UNEXPECTED
    payload_size = p[1] & 0x7F
    if payload_size > MAX_CONTROL_PAYLOAD:
        if opcode & OPCODE_CONTROL_BIT:
            return ERR_CONTROL_TOO_LONG
        width = 2 if payload_size == 126 else 8
        status = _parse_long_size(p + 2, n - 2, width, max_frame_size, &payload_size)
        if status != STATUS_FRAME:
            return status
        size += width
    elif payload_size > max_frame_size:
        return ERR_FRAME_TOO_BIG
    header.key = 0
    if expect_masked:
        if n < size + 4:
            return STATUS_NEED_MORE
        memcpy(&header.key, p + size, 4)
        size += 4
    header.size = size
    header.payload_size = <size_t>payload_size
    header.first = first
    return STATUS_FRAME


# What waits at `start`: a whole and sound frame (STATUS_FRAME), part of one, or a fault. Changes nothing but r.header,
# which is the header of the frame at `start` as soon as that is complete.
cdef inline Status _look(Reader* r) noexcept nogil:
    cdef const uint8_t* p = r.data + r.start
    cdef size_t n = r.end - r.start
    cdef uint8_t close[MAX_CONTROL_PAYLOAD]
    cdef uint16_t code
    cdef Status status
    if r.header.size == 0:
        status = parse_header(p, n, r.expect_masked, r.max_frame_size, &r.header)
        if status != STATUS_FRAME:
            return status
    if n - r.header.size < r.header.payload_size:
        return STATUS_NEED_MORE
    if r.header.first & 0x0F == OPCODE_CLOSE:
        mask_copy(close, p + r.header.size, r.header.payload_size, r.header.key)
        return parse_close_payload(close, r.header.payload_size, &code)
    return STATUS_FRAME


# STATUS_FRAME: r.frame is the next frame, its payload unmasked in place, valid until the buffer is received into.
# STATUS_NEED_MORE: receive more; reader_needed() knows how much memory the frame takes.
# Anything else: the fault of the frame at `start`; nothing moves on, so it stays the answer whatever is received.
# Faults are found in this order: reserved opcode, fragmented control, mask, control length, length encoding, frame
# size, and, when the frame is whole, the payload of a CLOSE.
cdef inline Status reader_next(Reader* r) noexcept nogil:
    cdef Frame* frame = &r.frame
    cdef uint8_t first
    cdef Status status = _look(r)
    if status != STATUS_FRAME:
        return status

    first = r.header.first
    frame.payload = r.data + r.start + r.header.size
    frame.payload_size = r.header.payload_size
    frame.opcode = first & 0x0F
    frame.fin = first >> 7
    frame.rsv1 = first >> 6 & 1
    frame.rsv2 = first >> 5 & 1
    frame.rsv3 = first >> 4 & 1
    if r.expect_masked:
        mask_copy(frame.payload, frame.payload, frame.payload_size, r.header.key)

    r.start += r.header.size + r.header.payload_size
    r.header.size = 0
    frame.tail_size = r.end - r.start
    # A fault in the next frame is not this frame's: the next call finds it again and reports it.
    frame.last_in_buffer = _look(r) != STATUS_FRAME
    return STATUS_FRAME


cdef inline size_t header_size(size_t payload_size, bint masked) noexcept nogil:
    cdef size_t size = 4 if masked else 0
    if payload_size <= MAX_CONTROL_PAYLOAD:
        return size + 2
    return size + 4 if payload_size <= 0xFFFF else size + 10


# The first byte of a frame (section 5.2).
cdef inline uint8_t first_byte(uint8_t opcode, bint fin, bint rsv1, bint rsv2, bint rsv3) noexcept nogil:
    return <uint8_t>(
        (FIN_BIT if fin else 0) | (RSV1_BIT if rsv1 else 0) | (0x20 if rsv2 else 0) | (0x10 if rsv3 else 0) | (opcode & 0x0F))


# Write the header of section 5.2 to `out`, which has room for header_size() bytes, and return that size.
# `key` is used when masked, as its four bytes lie in memory.
cdef inline size_t write_header(uint8_t* out, uint8_t first, size_t payload_size, bint masked, uint32_t key) noexcept nogil:
    cdef uint8_t mask_bit = 0x80 if masked else 0
    cdef uint64_t size64 = payload_size
    cdef size_t size = 2
    cdef int i
    out[0] = first
    if payload_size <= MAX_CONTROL_PAYLOAD:
        out[1] = mask_bit | <uint8_t>payload_size
    elif payload_size <= 0xFFFF:
        out[1] = mask_bit | 126
        out[2] = <uint8_t>(payload_size >> 8)
        out[3] = <uint8_t>payload_size
        size = 4
    else:
        out[1] = mask_bit | 127
        for i in range(8):
            out[2 + i] = <uint8_t>(size64 >> (56 - 8 * i))
        size = 10
    if masked:
        memcpy(out + size, &key, 4)
        size += 4
    return size


# May an endpoint put this code into a CLOSE frame (section 7.4)?
cdef inline bint close_code_may_travel(uint32_t code) noexcept nogil:
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


# Write code and reason to `out`, which has room for n + 2 bytes, and return the size; code 0 writes nothing.
# The caller has checked the code, the reason's UTF-8 and the limit of MAX_CONTROL_PAYLOAD.
cdef inline size_t write_close_payload(uint8_t* out, uint16_t code, const uint8_t* reason, size_t n) noexcept nogil:
    if code == 0:
        return 0
    out[0] = <uint8_t>(code >> 8)
    out[1] = <uint8_t>code
    if n:
        memcpy(out + 2, reason, n)
    return n + 2


# STATUS_FRAME when the n bytes at p may be the payload of a CLOSE; *code is then the code, 0 when there is none.
# The reason is what follows the two bytes of the code.
cdef inline Status parse_close_payload(const uint8_t* p, size_t n, uint16_t* code) noexcept nogil:
    code[0] = 0
    if n == 0:
        return STATUS_FRAME
    if n == 1:
        return ERR_CLOSE_SIZE
    code[0] = <uint16_t>(p[0] << 8 | p[1])
    if not close_code_may_travel(code[0]):
        return ERR_CLOSE_CODE
    if utf8_validate(UTF8_ACCEPT, p + 2, n - 2) != UTF8_ACCEPT:
        return ERR_CLOSE_REASON
    return STATUS_FRAME


# The close code that tells the peer of a fault (section 7.4.1); 0 when the status is none.
cdef inline uint16_t status_close_code(Status status) noexcept nogil:
    if status == ERR_FRAME_TOO_BIG:
        return 1009
    if status == ERR_CLOSE_REASON:
        return 1007
    return 1002 if status > STATUS_NEED_MORE else 0


# What came and what was expected, in ASCII; empty when the status is no fault.
cdef inline const char* status_sentence(Status status) noexcept nogil:
    if status == ERR_RESERVED_OPCODE:
        return b"received a frame with a reserved opcode, expected one of 0, 1, 2, 8, 9, 10"
    if status == ERR_CONTROL_FRAGMENTED:
        return b"received a control frame without FIN, expected control frames to be unfragmented"
    if status == ERR_CONTROL_TOO_LONG:
        return b"received a control frame with over 125 bytes of payload, expected at most 125"
    if status == ERR_MASK_MISSING:
        return b"received an unmasked frame from a client, expected a masked one"
    if status == ERR_MASK_UNEXPECTED:
        return b"received a masked frame from a server, expected an unmasked one"
    if status == ERR_LENGTH_NOT_MINIMAL:
        return b"received a payload length in more bytes than it needs, expected the shortest encoding"
    if status == ERR_LENGTH_TOP_BIT:
        return b"received a 64-bit payload length with its top bit set, expected it to be clear"
    if status == ERR_FRAME_TOO_BIG:
        return b"received a frame header with a payload size over max_frame_size, expected at most that"
    if status == ERR_CLOSE_SIZE:
        return b"received a CLOSE frame with 1 byte of payload, expected none, or 2 of a close code and a reason"
    if status == ERR_CLOSE_CODE:
        return b"received a CLOSE frame with a code that may not travel, expected 1000-1003, 1007-1014 or 3000-4999"
    if status == ERR_CLOSE_REASON:
        return b"received a CLOSE frame with a reason that is not UTF-8, expected valid UTF-8"
    return b""
