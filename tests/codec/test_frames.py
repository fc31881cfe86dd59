"""Frames as literal bytes, read and written; frames cut at every point; what is known about the bytes behind a frame."""

from __future__ import annotations

import pytest
from tests.codec.bindings import FrameReader, ParsedFrame, frame_header, write_frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = bytes.fromhex("37fa213d")


def check_both_ways(
    wire: bytes,
    opcode: int,
    payload: bytes,
    mask_key: bytes | None = None,
    *,
    fin: bool = True,
    rsv1: bool = False,
    rsv2: bool = False,
    rsv3: bool = False,
) -> None:
    """Writing this frame yields these bytes; reading these bytes yields this frame."""
    assert write_frame(opcode, payload, fin=fin, rsv1=rsv1, rsv2=rsv2, rsv3=rsv3, mask_key=mask_key) == wire
    reader = FrameReader(mask_key is not None)
    assert reader.feed(wire) == [ParsedFrame(opcode, fin, rsv1, rsv2, rsv3, payload, 0, True)]
    assert (reader.error, reader.unread) == (None, 0)


def test_the_examples_of_the_rfc() -> None:
    """RFC 6455 section 5.7."""
    check_both_ways(b"\x81\x05Hello", TEXT, b"Hello")
    check_both_ways(bytes.fromhex("818537fa213d7f9f4d5158"), TEXT, b"Hello", KEY)
    check_both_ways(b"\x01\x03Hel", TEXT, b"Hel", fin=False)
    check_both_ways(b"\x80\x02lo", 0, b"lo")
    check_both_ways(b"\x89\x05Hello", PING, b"Hello")
    check_both_ways(bytes.fromhex("8a8537fa213d7f9f4d5158"), PONG, b"Hello", KEY)
    check_both_ways(b"\x82\x7e\x01\x00" + bytes(256), BINARY, bytes(256))
    check_both_ways(b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536), BINARY, bytes(65536))


@pytest.mark.parametrize(
    ("first", "opcode", "bits"),
    [
        (0x00, 0, {"fin": False}),
        (0x02, BINARY, {"fin": False}),
        (0x88, CLOSE, {}),
        (0xC1, TEXT, {"rsv1": True}),
        (0xA1, TEXT, {"rsv2": True}),
        (0x91, TEXT, {"rsv3": True}),
        (0x72, BINARY, {"fin": False, "rsv1": True, "rsv2": True, "rsv3": True}),
        (0xFA, PONG, {"rsv1": True, "rsv2": True, "rsv3": True}),
    ],
)
def test_first_byte(first: int, opcode: int, bits: dict[str, bool]) -> None:
    check_both_ways(bytes([first, 0]), opcode, b"", None, **bits)
    check_both_ways(bytes([first, 0x80]) + KEY, opcode, b"", KEY, **bits)


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (0, "00"),
        (1, "01"),
        (125, "7d"),
        (126, "7e007e"),
        (127, "7e007f"),
        (255, "7e00ff"),
        (65535, "7effff"),
        (65536, "7f0000000000010000"),
        (0x12345, "7f0000000000012345"),
    ],
)
def test_length_encodings(size: int, length: str) -> None:
    payload = bytes(i * 7 % 251 for i in range(size))
    encoded = bytes.fromhex(length)
    check_both_ways(b"\x82" + encoded + payload, BINARY, payload)
    masked = bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))
    check_both_ways(b"\x82" + bytes([encoded[0] | 0x80]) + encoded[1:] + KEY + masked, BINARY, payload, KEY)


def test_headers_of_frames_too_large_to_build() -> None:
    assert frame_header(BINARY, 0x0123456789ABCDEF) == bytes.fromhex("827f0123456789abcdef")
    assert frame_header(BINARY, 2**63 - 1, mask_key=KEY) == bytes.fromhex("82ff7fffffffffffffff37fa213d")


def test_the_face_refuses_what_is_no_frame() -> None:
    with pytest.raises(ValueError, match="opcode 16, expected 0 to 15"):
        frame_header(16, 0)
    with pytest.raises(ValueError, match="3 bytes, expected 4"):
        frame_header(TEXT, 0, mask_key=b"abc")
    with pytest.raises(ValueError, match="13 bytes, expected at least 14"):
        FrameReader(True, capacity=13)


FRAMES = [
    (TEXT, b"Hello", {}),
    (BINARY, b"", {"fin": False}),
    (0, bytes(range(126)), {"rsv1": True}),
    (PING, b"", {}),
    (PONG, bytes(range(125)), {}),
    (BINARY, bytes(range(200)), {"fin": False}),
    (0, b"end", {}),
    (CLOSE, b"\x03\xe8bye", {}),
]


def stream(mask_key: bytes | None) -> bytes:
    return b"".join(write_frame(opcode, payload, mask_key=mask_key, **bits) for opcode, payload, bits in FRAMES)


def what(frames: list[ParsedFrame]) -> list[tuple[int, bytes, dict[str, bool]]]:
    """The frames in the form of FRAMES, without what depends on how the bytes arrived."""
    usual = {"fin": True, "rsv1": False, "rsv2": False, "rsv3": False}.items()
    return [(f.opcode, f.payload, {bit: not is_ for bit, is_ in usual if getattr(f, bit) != is_}) for f in frames]


@pytest.mark.parametrize("mask_key", [None, KEY], ids=["unmasked", "masked"])
@pytest.mark.parametrize("capacity", [14, 15, 64, 16384])
class TestCuts:
    def test_every_split_point(self, mask_key: bytes | None, capacity: int) -> None:
        wire = stream(mask_key)
        for cut in range(len(wire) + 1):
            reader = FrameReader(mask_key is not None, capacity=capacity)
            assert what(reader.feed(wire[:cut]) + reader.feed(wire[cut:])) == FRAMES, cut
            assert (reader.error, reader.unread) == (None, 0)

    def test_byte_by_byte(self, mask_key: bytes | None, capacity: int) -> None:
        reader = FrameReader(mask_key is not None, capacity=capacity)
        assert what([frame for byte in stream(mask_key) for frame in reader.feed(bytes([byte]))]) == FRAMES

    def test_a_frame_larger_than_the_buffer(self, mask_key: bytes | None, capacity: int) -> None:
        payload = bytes(range(256)) * 256
        wire = write_frame(PING, b"in front", mask_key=mask_key) + write_frame(BINARY, payload, mask_key=mask_key)
        for cut in [*range(30), 40000, len(wire) - 1]:
            reader = FrameReader(mask_key is not None, capacity=capacity)
            frames = reader.feed(wire[:cut]) + reader.feed(wire[cut:] + wire)
            assert [frame.payload for frame in frames] == [b"in front", payload] * 2


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536])
@pytest.mark.parametrize("mask_key", [None, KEY], ids=["unmasked", "masked"])
def test_the_size_of_a_frame_is_known_with_its_header(size: int, mask_key: bytes | None) -> None:
    header = frame_header(BINARY, size, mask_key=mask_key)
    reader = FrameReader(mask_key is not None)
    for n, byte in enumerate(header, start=1):
        assert reader.needed == 0
        frames = reader.feed(bytes([byte]))
        assert reader.unread == (n if not frames else 0)
    assert reader.needed == (len(header) + size if size else 0)


def behind_the_first(wire: bytes) -> tuple[int, bool]:
    frame = FrameReader(False).feed(wire)[0]
    return frame.tail_size, frame.last_in_buffer


def test_the_bytes_behind_a_frame() -> None:
    first = b"\x81\x05Hello"
    long = write_frame(BINARY, bytes(300))
    assert behind_the_first(first) == (0, True)
    assert behind_the_first(first + b"\x89") == (1, True)
    assert behind_the_first(first + b"\x89\x03ab") == (4, True)
    assert behind_the_first(first + b"\x89\x03abc") == (5, False)
    assert behind_the_first(first + b"\x89\x00") == (2, False)
    assert behind_the_first(first + long[:3]) == (3, True)
    assert behind_the_first(first + long[:-1]) == (303, True)
    assert behind_the_first(first + long) == (304, False)
    assert behind_the_first(first + long + b"\x89") == (305, False)


def test_the_bytes_behind_each_frame_of_a_burst() -> None:
    frames = FrameReader(False).feed(b"\x81\x01a" * 3 + b"\x81\x02a")
    assert [(f.tail_size, f.last_in_buffer) for f in frames] == [(9, False), (6, False), (3, True)]


def test_a_frame_completed_later_is_told_what_came_behind_it() -> None:
    reader = FrameReader(False)
    assert reader.feed(b"\x81\x05Hel") == []
    assert [(f.payload, f.tail_size, f.last_in_buffer) for f in reader.feed(b"lo\x89\x00")] == [
        (b"Hello", 0, True),  # the buffer was of the frame's size, the rest was received after it
        (b"", 0, True),
    ]


def test_a_fault_behind_a_frame_is_not_its_own() -> None:
    reader = FrameReader(False)
    (frame,) = reader.feed(b"\x81\x02ok\xff\x00")
    assert (frame.payload, frame.tail_size, frame.last_in_buffer) == (b"ok", 2, True)
    assert reader.error is not None
    assert reader.error.status == "ERR_RESERVED_OPCODE"
