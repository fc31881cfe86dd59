"""Frames in, whole messages out: what is joined, what is copied, what is held, and every fault with its close code."""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
import zlib

import pytest
from tests.codec.bindings import CodecError
from tests.messages.bindings import STATUS_NAMES, Message, MessageReader

from picows import WSProtocolError
from picows.deflate import Inflater

TEXT, BINARY = 1, 2
LIMIT = 1000
FREE_FRAGMENTS = 1024


class Verbatim:
    """An inflater that changes nothing, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bool, int]] = []
        self.view: memoryview | None = None

    def inflate(self, data: memoryview, fin: bool, max_size: int) -> bytes:
        assert data.readonly
        self.asked.append((bytes(data), fin, max_size))
        self.view = data
        return bytes(data)


class Answers:
    """An inflater that returns, or raises, what it was given."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def inflate(self, data: memoryview, fin: bool, max_size: int) -> bytes:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]


def feed(reader: MessageReader, kind: str, payload: bytes = b"") -> Message | None:
    """One frame, its kind in letters: the opcode, then + when the message goes on, and 1, 2, 3 for each RSV bit set."""
    opcode, flags = int(kind[0], 16), kind[1:]
    bits = {f"rsv{bit}": bit in flags for bit in "123"}
    return reader.feed(opcode, payload, fin="+" not in flags, **bits)


def fault_of(reader: MessageReader, kind: str, payload: bytes = b"") -> tuple[str, int]:
    with pytest.raises(CodecError) as caught:
        feed(reader, kind, payload)
    assert caught.value.sentence.startswith("received ")
    assert ", expected " in caught.value.sentence
    return caught.value.status, caught.value.close_code


def deflated(data: bytes, compressor: zlib._Compress | None = None) -> bytes:
    compressor = compressor or zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class TestJoining:
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("payload", [b"", b"x", "größer".encode() * 20])
    def test_a_message_of_one_frame_is_not_copied(self, opcode: int, payload: bytes) -> None:
        reader = MessageReader(LIMIT)
        for _ in range(3):
            assert feed(reader, str(opcode), payload) == (opcode, payload, False)
            assert reader.held == 0

    def test_fragments_are_joined(self) -> None:
        reader = MessageReader(LIMIT)
        assert feed(reader, "1+", b"one ") is None
        assert feed(reader, "0+", b"two ") is None
        assert feed(reader, "0+") is None
        assert feed(reader, "0", b"three") == (TEXT, b"one two three", True)
        assert feed(reader, "2+", b"four") is None
        assert feed(reader, "0") == (BINARY, b"four", True)
        assert reader.held == 0

    def test_control_frames_pass_by(self) -> None:
        reader = MessageReader(LIMIT)
        for kind in ("8", "9", "a"):
            assert feed(reader, kind, b"\xff") is None
        assert feed(reader, "1+", b"one ") is None
        for kind in ("9", "a", "8"):
            assert feed(reader, kind, b"\xff") is None
        assert feed(reader, "0", b"two") == (TEXT, b"one two", True)

    def test_what_came_behind_empty_fragments_only_is_not_copied(self) -> None:
        reader = MessageReader(LIMIT)
        assert feed(reader, "2+") is None
        assert feed(reader, "0+") is None
        assert feed(reader, "0", b"all") == (BINARY, b"all", False)
        assert feed(reader, "1+") is None
        assert feed(reader, "0") == (TEXT, b"", False)

    def test_memory_grows_by_doubling(self) -> None:
        reader = MessageReader(2**20)
        held = []
        feed(reader, "2+")
        for i in range(1, 2**14 + 1):
            feed(reader, "0+", b"0123456789abcdef")
            assert 16 * i <= reader.held <= 2 * 16 * i
            held.append(reader.held)
        assert len(set(held)) <= 16
        assert feed(reader, "0") == (BINARY, b"0123456789abcdef" * 2**14, True)

    def test_memory_does_not_grow_over_the_limit(self) -> None:
        reader = MessageReader(LIMIT)
        feed(reader, "2+", bytes(600))
        feed(reader, "0+", bytes(1))
        assert reader.held == LIMIT


# Frames, of which the last one is the fault; with an inflater or without.
FAULTS = [
    ("ERR_RSV_RESERVED", False, [("12", b"x")]),
    ("ERR_RSV_RESERVED", True, [("13", b"x")]),
    ("ERR_RSV_RESERVED", True, [("123", b"x")]),
    ("ERR_RSV_RESERVED", True, [("2+", b"x"), ("02", b"x")]),
    ("ERR_RSV_RESERVED", False, [("92", b"x")]),
    ("ERR_RSV_RESERVED", True, [("83", b"")]),
    ("ERR_RSV1_UNEXPECTED", False, [("11", b"x")]),
    ("ERR_RSV1_UNEXPECTED", False, [("2+1", b"x")]),
    ("ERR_RSV1_UNEXPECTED", False, [("1+", b"x"), ("01", b"x")]),
    ("ERR_RSV1_UNEXPECTED", False, [("91", b"x")]),
    ("ERR_RSV1_MISPLACED", True, [("01", b"x")]),
    ("ERR_RSV1_MISPLACED", True, [("1+1", b"x"), ("01", b"x")]),
    ("ERR_RSV1_MISPLACED", True, [("1+", b"x"), ("0+1", b"x")]),
    ("ERR_RSV1_MISPLACED", True, [("91", b"x")]),
    ("ERR_RSV1_MISPLACED", True, [("81", b"")]),
    ("ERR_STRAY_CONTINUATION", False, [("0", b"x")]),
    ("ERR_STRAY_CONTINUATION", False, [("0+", b"")]),
    ("ERR_STRAY_CONTINUATION", False, [("1+", b"x"), ("0", b"x"), ("9", b""), ("0", b"x")]),
    ("ERR_MESSAGE_UNFINISHED", False, [("1+", b"x"), ("1", b"x")]),
    ("ERR_MESSAGE_UNFINISHED", False, [("2+", b""), ("9", b""), ("2", b"")]),
    ("ERR_MESSAGE_UNFINISHED", True, [("2+1", b""), ("21", b"")]),
    ("ERR_MESSAGE_TOO_BIG", False, [("2", bytes(LIMIT + 1))]),
    ("ERR_MESSAGE_TOO_BIG", True, [("2", bytes(LIMIT + 1))]),
    ("ERR_MESSAGE_TOO_BIG", False, [("1+", bytes(LIMIT + 1))]),
    ("ERR_MESSAGE_TOO_BIG", False, [("2+", bytes(LIMIT)), ("0+", b""), ("0", b"x")]),
    ("ERR_MESSAGE_TOO_BIG", True, [("2+1", bytes(LIMIT)), ("0+", b""), ("0", b"x")]),
    ("ERR_TOO_MANY_FRAGMENTS", False, [("2+", b"")] + [("0+", b"")] * (FREE_FRAGMENTS + LIMIT // 16)),
    ("ERR_TEXT_NOT_UTF8", False, [("1", b"\xff")]),
    ("ERR_TEXT_NOT_UTF8", False, [("1", b"half \xc3")]),
    ("ERR_TEXT_NOT_UTF8", False, [("1", b"x" * 100 + b"\xed\xa0\x80" + b"x" * 100)]),
    ("ERR_TEXT_NOT_UTF8", False, [("1+", b"ok \xf0\x9f"), ("0+", b"x")]),
    ("ERR_TEXT_NOT_UTF8", False, [("1+", b"ok \xf0"), ("0+", b"\x9f\x98"), ("0", b"")]),
    ("ERR_TEXT_NOT_UTF8", False, [("1+", b"\xed"), ("0+", b"\xa0")]),
    ("ERR_TEXT_NOT_UTF8", True, [("1+1", b"\xc3"), ("0", b"\xa9"), ("1", b"\xa9")]),
    ("ERR_TEXT_NOT_UTF8", True, [("11", b"\xc3")]),
]
CLOSE_CODES = dict.fromkeys(STATUS_NAMES.values(), 1002) | {
    "ERR_MESSAGE_TOO_BIG": 1009, "ERR_TOO_MANY_FRAGMENTS": 1009, "ERR_TEXT_NOT_UTF8": 1007,
}  # fmt: skip


def test_every_fault_is_in_the_table() -> None:
    assert {status for status, *_ in FAULTS} == set(STATUS_NAMES.values())


@pytest.mark.parametrize(("status", "inflates", "frames"), FAULTS)
def test_a_fault_is_found_at_its_frame_and_stays(status: str, inflates: bool, frames: list[tuple[str, bytes]]) -> None:
    reader = MessageReader(LIMIT, Verbatim() if inflates else None)
    *before, last = frames
    for kind, payload in before:
        feed(reader, kind, payload)
    expected = (status, CLOSE_CODES[status])
    assert fault_of(reader, *last) == expected
    assert reader.held == 0
    for kind in ("1", "0", "9", "92", "2+"):
        assert fault_of(reader, kind) == expected


class TestLimits:
    @pytest.mark.parametrize("limit", [0, 1, 125, LIMIT])
    def test_a_message_of_the_limit_passes(self, limit: int) -> None:
        whole, reader = b"x" * limit, MessageReader(limit)
        assert feed(reader, "1", whole) == (TEXT, whole, False)
        assert feed(reader, "2+", whole) is None
        assert feed(reader, "0") == (BINARY, whole, limit > 0)
        assert feed(reader, "2+", whole[:-1]) is None
        assert feed(reader, "0", whole[-1:]) == (BINARY, whole, limit > 1)
        assert fault_of(reader, "2", whole + b"x") == ("ERR_MESSAGE_TOO_BIG", 1009)

    def test_so_many_fragments_pass(self) -> None:
        reader = MessageReader(LIMIT)
        for _ in range(2):
            feed(reader, "2+")
            for _ in range(FREE_FRAGMENTS + LIMIT // 16 - 2):
                feed(reader, "0+")
            assert feed(reader, "0", b"x") == (BINARY, b"x", False)

    def test_room_is_what_the_next_frame_may_bring(self) -> None:
        reader = MessageReader(LIMIT)
        assert reader.room == LIMIT
        feed(reader, "2+", bytes(300))
        assert reader.room == LIMIT - 300
        feed(reader, "0+", bytes(100))
        assert reader.room == LIMIT - 400
        feed(reader, "9", bytes(100))
        assert reader.room == LIMIT - 400
        feed(reader, "0", bytes(reader.room))
        assert reader.room == LIMIT

    def test_there_is_always_room_for_a_control_frame(self) -> None:
        assert MessageReader(0).room == 125
        reader = MessageReader(LIMIT)
        feed(reader, "2+", bytes(LIMIT))
        assert reader.room == 125

    def test_room_for_what_deflate_makes_larger(self) -> None:
        reader = MessageReader(LIMIT, Verbatim())
        worst = reader.room
        assert LIMIT * 9 // 8 < worst < LIMIT * 1.3
        feed(reader, "2+", bytes(300))
        assert reader.room == LIMIT - 300
        feed(reader, "0")
        assert reader.room == worst
        feed(reader, "2+1", bytes(LIMIT - 100))
        assert 125 < reader.room < 200
        feed(reader, "0", bytes(100))
        assert reader.room == worst

    @pytest.mark.parametrize("mem_level", [1, 8])
    @pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY])
    @pytest.mark.parametrize("size", [0, 1, 100, 65536])
    def test_noise_fits_however_it_was_compressed(self, mem_level: int, strategy: int, size: int) -> None:
        noise = bytes((i * i * 2654435761 >> 13) & 0x7F | 0x80 for i in range(size))
        payload = deflated(noise, zlib.compressobj(9, wbits=-9, memLevel=mem_level, strategy=strategy))
        reader = MessageReader(size, Inflater(zlib, 15, False))
        assert len(payload) <= reader.room
        assert feed(reader, "21", payload) == (BINARY, noise, True)

    def test_the_largest_limit_takes_no_memory(self) -> None:
        reader = MessageReader(2**64 - 1)
        assert reader.room > sys.maxsize // 2
        feed(reader, "2+", b"a")
        assert reader.held == 1
        assert feed(reader, "0", b"b") == (BINARY, b"ab", True)

    def test_memory_that_is_not_there_is_a_memory_error(self) -> None:
        testcapi = pytest.importorskip("_testcapi")
        if sys.gettrace() is not None:
            pytest.skip("whoever counts the lines wants memory, too")
        reader = MessageReader(LIMIT)
        feed(reader, "2+", b"x" * 100)
        more = b"y" * 200
        failed = False
        testcapi.set_nomemory(0)
        try:
            reader.feed(0, more)
        except MemoryError:
            failed = True
        finally:
            testcapi.remove_mem_hooks()
        assert failed
        assert reader.held == 0
        with pytest.raises(MemoryError):
            feed(reader, "0", more)


class TestInflating:
    def test_the_inflater_sees_compressed_messages_only(self) -> None:
        inflater = Verbatim()
        reader = MessageReader(LIMIT, inflater)
        assert feed(reader, "1", b"plain") == (TEXT, b"plain", False)
        assert feed(reader, "1+", b"pl") is None
        assert feed(reader, "0", b"ain") == (TEXT, b"plain", True)
        assert inflater.asked == []
        assert feed(reader, "11", b"packed") == (TEXT, b"packed", True)
        assert feed(reader, "2+1", b"pa") is None
        assert feed(reader, "9", b"ping") is None
        assert feed(reader, "0+") is None
        assert feed(reader, "0", b"cked") == (BINARY, b"packed", True)
        assert inflater.asked == [
            (b"packed", True, LIMIT), (b"pa", False, LIMIT), (b"", False, LIMIT - 2), (b"cked", True, LIMIT - 2),
        ]  # fmt: skip
        assert feed(reader, "1", b"plain") == (TEXT, b"plain", False)

    def test_the_payload_is_lent(self) -> None:
        inflater = Verbatim()
        feed(MessageReader(LIMIT, inflater), "21", b"x")
        assert inflater.view is not None
        with pytest.raises(ValueError, match="released"):
            bytes(inflater.view)

    def test_nothing_keeps_the_message(self) -> None:
        answer = b"inflated" * 10
        references = sys.getrefcount(answer)
        reader = MessageReader(LIMIT, Answers(answer))
        assert feed(reader, "21", b"x") == (BINARY, answer, True)
        feed(reader, "2+1", b"x")
        assert feed(reader, "0", b"x") == (BINARY, answer * 2, True)
        del reader
        assert sys.getrefcount(answer) == references

    @pytest.mark.parametrize("end", [("0", b"x"), ("0+", b"x"), ("1", b"x")])
    def test_no_memory_is_left_behind(self, end: tuple[str, bytes]) -> None:
        tracemalloc.start()
        try:
            for _ in range(20):
                reader = MessageReader(2**20)
                feed(reader, "2+", bytes(2**16))
                with contextlib.suppress(CodecError):
                    feed(reader, *end)
            del reader
            assert tracemalloc.get_traced_memory()[0] < 2**16
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("error", [WSProtocolError(1007, "damaged"), MemoryError(), KeyboardInterrupt()])
    def test_what_the_inflater_raises_passes_and_stays(self, error: BaseException) -> None:
        reader = MessageReader(LIMIT, Answers(error))
        feed(reader, "1", b"before")
        for kind in ("21", "1", "0"):
            with pytest.raises(type(error)) as caught:
                feed(reader, kind)
            assert caught.value is error

    @pytest.mark.parametrize("answer", [None, "text", bytearray(b"x")])
    def test_an_inflater_returns_bytes(self, answer: object) -> None:
        with pytest.raises(TypeError, match="bytes"):
            feed(MessageReader(LIMIT, Answers(answer)), "21")

    def test_an_inflater_is_not_trusted_with_the_limit(self) -> None:
        reader = MessageReader(LIMIT, Answers(bytes(LIMIT + 1)))
        assert fault_of(reader, "2+1", b"x") == ("ERR_MESSAGE_TOO_BIG", 1009)

    def test_a_frame_that_deflate_cannot_have_made_is_not_inflated(self) -> None:
        inflater = Verbatim()
        reader = MessageReader(LIMIT, inflater)
        assert fault_of(reader, "21", bytes(reader.room + 1)) == ("ERR_MESSAGE_TOO_BIG", 1009)
        assert inflater.asked == []
        reader = MessageReader(LIMIT, Answers(b"inflated"))
        assert feed(reader, "21", bytes(reader.room)) == (BINARY, b"inflated", True)

    def test_a_bomb_is_1009(self) -> None:
        bomb = deflated(bytes(10 * LIMIT))
        for cut in (len(bomb), 5):
            reader = MessageReader(LIMIT, Inflater(zlib, 15, False))
            with pytest.raises(WSProtocolError) as caught:  # noqa: PT012
                feed(reader, "2+1", bomb[:cut])
                feed(reader, "0", bomb[cut:])
            assert caught.value.code == 1009

    def test_text_is_checked_after_inflating(self) -> None:
        compressor = zlib.compressobj(wbits=-15)
        reader = MessageReader(LIMIT, Inflater(zlib, 15, False))
        text = "größer 😀 ".encode() * 10
        assert feed(reader, "11", deflated(text, compressor)) == (TEXT, text, True)
        assert feed(reader, "11", deflated(text, compressor)) == (TEXT, text, True)
        assert fault_of(reader, "11", deflated(text[:-2], compressor)) == ("ERR_TEXT_NOT_UTF8", 1007)
