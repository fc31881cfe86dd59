"""Payloads of compressed messages, byte for byte and for all messages (RFC 7692 section 7.2)."""

from __future__ import annotations

import array
import itertools
import re
import tracemalloc
import types
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from picows.deflate import Agreement, DeflateKey, Deflater, Inflater, WSDeflate, compress_fresh
from picows.errors import WSProtocolError

LIMIT = 1 << 20
TAIL = b"\x00\x00\xff\xff"
HELLO = bytes.fromhex("f248cdc9c90700")
FINAL_HELLO = bytes.fromhex("f348cdc9c90700")  # a final block, not yet ended as a message has to
properties = settings(max_examples=150, deadline=None)


def agreement(bits: int = 12, forgets: bool = False, **options: int) -> Agreement:
    return Agreement(WSDeflate(zlib=zlib, **options), bits, bits, forgets, forgets)  # type: ignore[arg-type]


def pair(bits: int = 12, forgets: bool = False, **options: int) -> tuple[Deflater, Inflater]:
    """What a server sends by, and what its client receives by."""
    both = agreement(bits, forgets, **options)
    return both.deflater(False), both.inflater(True)


def inflate_strictly(payload: bytes, bits: int) -> bytes:
    """By zlib, one byte at a time, so that nothing but the window is referred to."""
    inflating = zlib.decompressobj(-bits)
    out = bytearray()
    rest = payload + TAIL
    while rest:
        out += inflating.decompress(rest, 1)
        rest = inflating.unconsumed_tail
    return bytes(out)


def deflate(data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    deflating = zlib.compressobj(wbits=-15)
    return deflating.compress(data) + deflating.flush(flush)


def fails(inflater: Inflater, payload: bytes, fin: bool = True, max_size: int = LIMIT) -> WSProtocolError:
    with pytest.raises(WSProtocolError) as caught:
        inflater.inflate(payload, fin, max_size)
    return caught.value


def test_one_block() -> None:
    deflater, inflater = pair()
    assert deflater.compress(b"Hello") == HELLO  # section 7.2.3.1
    assert inflater.inflate(HELLO, True, LIMIT) == b"Hello"


def test_one_message_in_two_frames() -> None:
    inflater = pair()[1]
    assert inflater.inflate(HELLO[:3], False, LIMIT) + inflater.inflate(HELLO[3:], True, LIMIT) == b"Hello"  # 7.2.3.1


def test_the_second_message_refers_to_the_first() -> None:
    deflater, inflater = pair()
    assert [deflater.compress(b"Hello") for _ in range(2)] == [HELLO, bytes.fromhex("f200110000")]  # 7.2.3.2
    assert [inflater.inflate(payload, True, LIMIT) for payload in (HELLO, bytes.fromhex("f200110000"))] == [b"Hello"] * 2


def test_no_context_takeover() -> None:
    deflater, inflater = pair(forgets=True)
    assert [deflater.compress(b"Hello") for _ in range(2)] == [HELLO, HELLO]
    assert inflater.inflate(HELLO, True, LIMIT) == b"Hello"
    error = fails(inflater, bytes.fromhex("f200110000"))
    assert (error.code, "too far back" in str(error)) == (1007, True)


def test_no_context_takeover_when_an_empty_frame_ends_the_message() -> None:
    deflater, inflater = pair(forgets=True)
    for _ in range(2):
        payloads = [deflater.compress(b"Hello", False), deflater.compress(b"", True)]
        assert payloads == [HELLO + TAIL, b"\0"]
        assert inflater.inflate(payloads[0], False, LIMIT) + inflater.inflate(payloads[1], True, LIMIT) == b"Hello"


def test_a_block_with_no_compression() -> None:
    payload = bytes.fromhex("000500faff48656c6c6f00")  # section 7.2.3.3
    assert pair()[1].inflate(payload, True, LIMIT) == b"Hello"
    assert pair(level=0)[0].compress(b"Hello") == payload


def test_a_final_block() -> None:
    inflater = pair()[1]
    for _ in range(3):
        assert inflater.inflate(FINAL_HELLO + b"\0", True, LIMIT) == b"Hello"  # section 7.2.3.4
        assert inflater.inflate(HELLO, True, LIMIT) == b"Hello"


def test_what_follows_a_final_block_begins_anew() -> None:
    inflater = pair()[1]
    assert inflater.inflate(FINAL_HELLO + HELLO, True, LIMIT) == b"HelloHello"
    assert inflater.inflate(FINAL_HELLO * 3 + b"\0", True, LIMIT) == b"Hello" * 3
    assert inflater.inflate(FINAL_HELLO, False, LIMIT) + inflater.inflate(HELLO, True, LIMIT) == b"HelloHello"
    assert fails(inflater, FINAL_HELLO + bytes.fromhex("f200110000")).code == 1007


def test_a_final_block_with_nothing_behind() -> None:
    inflater = pair()[1]
    for parts in ([FINAL_HELLO], [FINAL_HELLO, b""], [b"", FINAL_HELLO]):
        assert b"".join(inflater.inflate(part, part is parts[-1], LIMIT) for part in parts) == b"Hello"
        assert inflater.inflate(HELLO, True, LIMIT) == b"Hello"


def test_a_final_block_that_ends_with_what_is_not_sent() -> None:
    inflater = pair()[1]
    for _ in range(2):
        assert inflater.inflate(HELLO + TAIL + b"\1", True, LIMIT) == b"Hello"
        assert inflater.inflate(HELLO, True, LIMIT) == b"Hello"
    assert inflater.inflate(HELLO + TAIL + b"\1", True, LIMIT) == b"Hello"
    assert fails(inflater, bytes.fromhex("f200110000")).code == 1007
    # Nothing of it is the next message's, to which its blocks are counted.
    inflater = pair()[1]
    assert inflater.inflate(HELLO + TAIL + b"\1", True, LIMIT) == b"Hello"
    assert inflater.inflate(b"\x03\0" * 1000, True, LIMIT) == b""


def test_two_blocks_in_one_message() -> None:
    inflater = pair()[1]
    assert inflater.inflate(bytes.fromhex("f248050000 00ffff cac9c90700"), True, LIMIT) == b"Hello"  # 7.2.3.5


def test_empty_blocks() -> None:
    inflater = pair()[1]
    empty = b"\0" + TAIL
    assert inflater.inflate(empty * 3 + b"\x02\0" + TAIL + deflate(b"Hello") + empty * 2 + b"\0", True, LIMIT) == b"Hello"
    assert inflater.inflate(HELLO, True, LIMIT) == b"Hello"


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("bits", [8, 12])
def test_an_empty_message(bits: int, forgets: bool) -> None:
    deflater, inflater = pair(bits, forgets)
    for data in (b"", b"Hello", b"", b"", b"Hello", b""):
        payload = deflater.compress(data)
        assert data or payload == b"\0"  # section 7.2.3.6
        assert inflater.inflate(payload, True, LIMIT) == data


def test_an_empty_payload_does_no_harm() -> None:
    inflater = pair()[1]
    for payload, data in ((b"", b""), (HELLO, b"Hello"), (b"", b""), (HELLO, b"Hello")):
        assert inflater.inflate(payload, True, LIMIT) == data


def test_empty_frames() -> None:
    deflater, inflater = pair()
    payloads = [deflater.compress(data, fin) for data, fin in ((b"", False), (b"Hello", False), (b"", False), (b"", True))]
    assert payloads == [b"", HELLO + TAIL, b"", b"\0"]
    assert [inflater.inflate(payload, i == 3, LIMIT) for i, payload in enumerate(payloads)] == [b"", b"Hello", b"", b""]
    assert inflater.inflate(deflater.compress(b"Hello"), True, LIMIT) == b"Hello"


# Small alphabets and repetition make matches near and far.
words = st.binary(min_size=1, max_size=40)
data_of_words = st.lists(words, min_size=1, max_size=5).flatmap(
    lambda some: st.lists(st.sampled_from(some), max_size=300).map(b"".join)
)
datas = st.binary(max_size=300) | data_of_words | st.integers(0, 200_000).map(bytes)
messages = st.lists(st.tuples(datas, st.lists(st.integers(0), max_size=3)), max_size=5)


def frames_of(data: bytes, cuts: list[int]) -> list[tuple[bytes, bool]]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [(data[a:b], i == len(cuts)) for i, (a, b) in enumerate(zip(places, places[1:]))]


@properties
@given(messages, st.integers(8, 15), st.booleans(), st.integers(-1, 9), st.integers(1, 9), st.booleans())
def test_round_trip(sent, bits, forgets, level, mem_level, is_client):  # type: ignore[no-untyped-def]
    both = agreement(bits, forgets, level=level, mem_level=mem_level)
    deflater, inflater = both.deflater(is_client), both.inflater(not is_client)
    for data, cuts in sent:
        came = b""
        for part, fin in frames_of(data, cuts):
            came += inflater.inflate(deflater.compress(part, fin), fin, len(data) - len(came))
        assert came == data


@properties
@given(messages, st.integers(0, 9))
def test_frames_can_be_cut_anew(sent, level):  # type: ignore[no-untyped-def]
    deflater, inflater = pair(level=level)
    for data, cuts in sent:
        frames = frames_of(deflater.compress(data), cuts)
        assert b"".join(inflater.inflate(part, fin, len(data)) for part, fin in frames) == data


@properties
@given(data_of_words | st.integers(0, 3000).map(bytes), st.integers(8, 15), st.integers(0, 9))
def test_no_message_refers_back_further_than_the_window(data, bits, level):  # type: ignore[no-untyped-def]
    deflater = pair(bits, level=level)[0]
    payloads = [deflater.compress(part, fin) for part, fin in ((data, False), (data, True))]
    assert inflate_strictly(b"".join(payloads), bits) == data * 2


def test_a_window_of_eight_bits() -> None:
    data = b"".join(b"%d apples and %d pears, " % (i, i * 7) for i in range(400))
    deflater, inflater = pair(8)
    payload = deflater.compress(data)
    assert inflate_strictly(payload, 8) == data
    assert len(payload) < len(data) * 0.6
    for each in (data, data[:100], data[:256], data[:257]):
        assert inflater.inflate(deflater.compress(each) if each is not data else payload, True, LIMIT) == each
    # zlib happens to keep within 8 bits when set to 9; that blocks stand for themselves does not depend on this.
    blocks = payload.split(TAIL)
    assert len(blocks) == -(-len(data) // 256)
    assert b"".join(zlib.decompressobj(-8).decompress(block + TAIL) for block in blocks) == data
    # The test is worth something: what was made for a larger window does not pass.
    with pytest.raises(zlib.error, match="too far back"):
        inflate_strictly(pair(12)[0].compress(data), 8)


def test_each_direction_has_its_own_rules() -> None:
    both = Agreement(WSDeflate(zlib=zlib), 9, 15, True, False)
    assert (both.deflater(False).key.window_bits, both.deflater(True).key.window_bits) == (9, 15)
    for is_client, second in ((False, HELLO), (True, bytes.fromhex("f200110000"))):
        deflater, inflater = both.deflater(is_client), both.inflater(not is_client)
        assert [deflater.compress(b"Hello") for _ in range(2)] == [HELLO, second]
        assert [inflater.inflate(payload, True, LIMIT) for payload in (HELLO, second)] == [b"Hello"] * 2
    far = b"x" + bytes(range(1, 255)) * 4 + b"x" + bytes(range(1, 255))[::-1] * 4
    assert inflate_strictly(both.deflater(False).compress(far), 9) == far


def as_matrix(data: bytes) -> memoryview:
    return memoryview(data).cast("B", (2, len(data) // 2)) if data else memoryview(data)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: array.array("H", data), as_matrix])
@pytest.mark.parametrize("bits", [8, 12])
def test_any_buffer(bits, wrap):  # type: ignore[no-untyped-def]
    data = b"".join(b"%6d" % number for number in range(20_000))
    for each in (data[:24], data, b""):
        deflater, inflater = pair(bits)
        payload = deflater.compress(wrap(each), False)
        payload += deflater.compress(wrap(b""), True)
        payload += (TAIL + b"\0") * (len(payload) % 2)  # another empty block makes it even
        assert inflater.inflate(wrap(payload), True, LIMIT) == each


def test_what_is_no_contiguous_buffer() -> None:
    deflater, inflater = pair()
    strided = memoryview(b"Hello" * 2)[::2]
    for wrong, error in ((strided, BufferError), ("text", TypeError), (None, TypeError)):
        with pytest.raises(error):
            deflater.compress(wrong)  # type: ignore[arg-type]
        with pytest.raises(error):
            inflater.inflate(wrong, True, LIMIT)  # type: ignore[arg-type]
    # No harm is done to the next message.
    assert deflater.compress(b"Hello") == HELLO


def test_what_was_not_sent_is_not_referred_to() -> None:
    deflater, inflater = pair()
    assert inflater.inflate(deflater.compress(b"Hello"), True, LIMIT) == b"Hello"
    with pytest.raises(BufferError):
        deflater.compress(memoryview(b"Hello" * 2)[::2])
    assert deflater.compress(b"Hello") == HELLO


def test_a_message_shared_by_connections() -> None:
    settings = WSDeflate(zlib=zlib)
    peers = [
        (peer.deflater(False), peer.inflater(True))
        for peer in (Agreement(settings, 12, bits, bits == 9, False) for bits in (9, 12, 15))
    ]
    own = [b"own %d" % i * 10 for i in range(3)]
    for (deflater, inflater), data in zip(peers, own):
        assert inflater.inflate(deflater.compress(data), True, LIMIT) == data
    assert len({deflater.key for deflater, _ in peers}) == 1
    shared = compress_fresh(peers[0][0].key, b"shared" * 10)
    for (deflater, inflater), data in zip(peers, own):
        deflater.forget()
        assert inflater.inflate(shared, True, LIMIT) == b"shared" * 10
        for again in (data, b"shared" * 10, data):
            assert inflater.inflate(deflater.compress(again), True, LIMIT) == again


def test_the_key_is_all_that_a_message_depends_on() -> None:
    def key(bits: int = 12, forgets: bool = False, **options: int) -> DeflateKey:
        return agreement(bits, forgets, **options).deflater(False).key

    assert key() == key(forgets=True) == key(min_size=0)
    different = [key(), key(11), key(level=1), key(mem_level=9)]
    assert all(a != b for a, b in itertools.combinations(different, 2))


@pytest.mark.parametrize("size", [0, 1, 5, 131071, 131072, 131073, 131101, 131200, 262144, 1_000_000])
def test_the_limit_is_exact(size: int) -> None:
    payload = deflate(b"x" * size)[:-4]
    assert pair(15)[1].inflate(payload, True, size) == b"x" * size
    if size:
        error = fails(pair(15)[1], payload, max_size=size - 1)
        assert error.code == 1009
        assert str(error) == f"a compressed frame has over {size - 1} bytes when decompressed"


def test_no_more_is_decompressed_than_the_limit_and_a_byte() -> None:
    asked: list[int] = []

    class Module(types.ModuleType):
        error = zlib.error

        def decompressobj(self, wbits: int) -> types.SimpleNamespace:
            context = zlib.decompressobj(wbits)

            def decompress(data: bytes, limit: int) -> bytes:
                asked.append(limit)
                piece = context.decompress(data, limit)
                told.eof, told.unused_data, told.unconsumed_tail = context.eof, context.unused_data, context.unconsumed_tail
                return piece

            told = types.SimpleNamespace(decompress=decompress)
            return told

    inflater = Inflater(Module("module"), 15, False)
    assert fails(inflater, FINAL_HELLO + deflate(bytes(1000)), max_size=10).code == 1009
    assert asked == [11, 6]


def peak_of_failure(inflater: Inflater, payload: bytes, code: int) -> int:
    """The memory that was taken."""
    tracemalloc.start()
    try:
        assert fails(inflater, payload, max_size=2 * LIMIT).code == code
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_costs_no_more_than_the_limit() -> None:
    deflating = zlib.compressobj(9, wbits=-15)
    bomb = b"".join([*(deflating.compress(bytes(LIMIT)) for _ in range(128)), deflating.flush(zlib.Z_SYNC_FLUSH)])
    assert len(bomb) < 140_000
    # By an eighth, what comes out is gathered in more memory than it needs.
    assert peak_of_failure(pair(15)[1], bomb, 1009) < 2 * LIMIT * 9 // 8 + (512 << 10)
    assert peak_of_failure(pair(15)[1], bomb * 80, 1009) < 2 * LIMIT * 9 // 8 + (512 << 10)


def test_a_whole_message_is_not_held_twice() -> None:
    payload = deflate(bytes(8 * LIMIT))[:-4]
    inflater = pair(15)[1]
    tracemalloc.start()
    try:
        assert len(inflater.inflate(payload, True, 8 * LIMIT)) == 8 * LIMIT
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT * 9 // 8 + (512 << 10)
    finally:
        tracemalloc.stop()


def test_final_blocks_are_bounded() -> None:
    inflater = pair()[1]
    final = b"\x03\0"  # as short as it can be
    assert inflater.inflate(final * 1000, True, LIMIT) == b""
    assert inflater.inflate(final * 600, False, LIMIT) == b""
    error = fails(inflater, final * 401, False)
    assert (error.code, str(error)) == (1008, "a compressed message has over 1000 final blocks")


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (b"\x07", "a compressed message cannot be decompressed: Error -3 while decompressing data: invalid block type"),
        (b"\0\5\0\xff\xffHello", "a compressed message cannot be decompressed: .*invalid stored block lengths"),
        (bytes.fromhex("f200110000"), "a compressed message cannot be decompressed: .*too far back"),
        (HELLO[:3], "a compressed message ends within a block"),
        (b"\0\x09\0\xf6\xffHello", "a compressed message ends within a block"),
        (b"\3", "a compressed message ends within a block"),
        (HELLO + b"\0" + TAIL + b"\x06", "a compressed message cannot be decompressed: .*invalid"),
    ],
)
def test_damaged_data(payload: bytes, sentence: str) -> None:
    error = fails(pair()[1], payload)
    assert error.code == 1007
    assert re.match(sentence, str(error))


@properties
@given(st.binary(max_size=200), st.binary(max_size=100), st.integers(8, 15), st.booleans(), st.integers(0, 3000))
@example(FINAL_HELLO, HELLO, 12, False, 10)
def test_only_protocol_errors_escape(data, more, bits, forgets, limit):  # type: ignore[no-untyped-def]
    inflater = pair(bits, forgets)[1]
    try:
        for payload, fin in ((HELLO, True), (data, False), (more, True), (data + more, True)):
            assert len(inflater.inflate(payload, fin, limit)) <= limit
    except WSProtocolError as exc:
        assert exc.code in (1007, 1009)


def test_an_idle_connection_holds_no_context() -> None:
    tracemalloc.start()
    try:
        deflater, inflater = pair(15, mem_level=9)
        assert tracemalloc.get_traced_memory()[0] < 4096
        inflater.inflate(deflater.compress(b"Hello"), True, LIMIT)
        assert tracemalloc.get_traced_memory()[0] > 100_000
        deflater.forget()
        assert tracemalloc.get_traced_memory()[0] < 60_000
        deflater, inflater = pair(15, True, mem_level=9)
        deflater.compress(b"Hello", False)
        assert tracemalloc.get_traced_memory()[0] > 100_000
        deflater.compress(b"Hello")
        inflater.inflate(HELLO, True, LIMIT)
        assert tracemalloc.get_traced_memory()[0] < 4096
    finally:
        tracemalloc.stop()
