"""Every way to break the framing: what it is called, which close code tells the peer, and the byte that gives it away."""

from __future__ import annotations

import pytest
from tests.codec.bindings import STATUS_NAMES, CodecError, FrameReader, frame_header, write_frame

KEY = bytes.fromhex("37fa213d")
LIMIT = 100_000
SERVER, CLIENT = True, False  # who reads: a server expects masked frames

# Who reads, bytes of which the last one makes the fault certain, the fault.
FAULTS = [
    *[(who, f"{fin | opcode:02x}", "ERR_RESERVED_OPCODE")
      for who in (SERVER, CLIENT) for fin in (0, 0x80) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    (SERVER, "ff", "ERR_RESERVED_OPCODE"),
    (SERVER, "08", "ERR_CONTROL_FRAGMENTED"),
    (CLIENT, "09", "ERR_CONTROL_FRAGMENTED"),
    (CLIENT, "7a", "ERR_CONTROL_FRAGMENTED"),
    (SERVER, "8100", "ERR_MASK_MISSING"),
    (SERVER, "827f", "ERR_MASK_MISSING"),
    (CLIENT, "8180", "ERR_MASK_UNEXPECTED"),
    (CLIENT, "82ff", "ERR_MASK_UNEXPECTED"),
    (CLIENT, "887e", "ERR_CONTROL_TOO_LONG"),
    (CLIENT, "897f", "ERR_CONTROL_TOO_LONG"),
    (SERVER, "8afe", "ERR_CONTROL_TOO_LONG"),
    (CLIENT, "827e0000", "ERR_LENGTH_NOT_MINIMAL"),
    (SERVER, "82fe007d", "ERR_LENGTH_NOT_MINIMAL"),
    (CLIENT, "827f000000000000", "ERR_LENGTH_NOT_MINIMAL"),
    (SERVER, "82ff000000000000", "ERR_LENGTH_NOT_MINIMAL"),
    (CLIENT, "827f80", "ERR_LENGTH_TOP_BIT"),
    (SERVER, "82ffff", "ERR_LENGTH_TOP_BIT"),
    (CLIENT, "827f7f", "ERR_FRAME_TOO_BIG"),
    (CLIENT, "827f000001", "ERR_FRAME_TOO_BIG"),
    (SERVER, "82ff000000000002", "ERR_FRAME_TOO_BIG"),
    (CLIENT, "827f000000000001" "87", "ERR_FRAME_TOO_BIG"),
    (SERVER, "82ff000000000001" "86" "a1", "ERR_FRAME_TOO_BIG"),
    (CLIENT, "8801" "03", "ERR_CLOSE_SIZE"),
    (SERVER, "8881" "00000000" "03", "ERR_CLOSE_SIZE"),
    (CLIENT, "8802" "03ed", "ERR_CLOSE_CODE"),
    (SERVER, "8882" "ffffffff" "fc12", "ERR_CLOSE_CODE"),
    (CLIENT, "8804" "03ed" "c328", "ERR_CLOSE_CODE"),
    (CLIENT, "8804" "03e8" "c328", "ERR_CLOSE_REASON"),
    (CLIENT, "8803" "03e8" "c3", "ERR_CLOSE_REASON"),
    (SERVER, "8883" "00000000" "03e8" "ff", "ERR_CLOSE_REASON"),
]  # fmt: skip
CLOSE_CODES = dict.fromkeys(STATUS_NAMES.values(), 1002) | {"ERR_FRAME_TOO_BIG": 1009, "ERR_CLOSE_REASON": 1007}


def test_every_fault_is_in_the_table() -> None:
    assert {status for _, _, status in FAULTS} == set(STATUS_NAMES.values())


@pytest.mark.parametrize(("who", "wire_hex", "status"), FAULTS)
class TestFault:
    def test_is_found_at_its_first_certain_byte(self, who: bool, wire_hex: str, status: str) -> None:
        *before, last = bytes.fromhex(wire_hex)
        reader = FrameReader(who, max_frame_size=LIMIT)
        for byte in before:
            assert reader.feed(bytes([byte])) == []
            assert reader.error is None
        assert reader.feed(bytes([last])) == []
        self.check(reader, status)

    def test_is_the_same_when_more_bytes_came_with_it(self, who: bool, wire_hex: str, status: str) -> None:
        for more in (b"\x00" * 20, b"\xff" * 20, b"\x81\x00"):
            reader = FrameReader(who, max_frame_size=LIMIT)
            assert reader.feed(bytes.fromhex(wire_hex) + more) == []
            self.check(reader, status)

    def test_leaves_the_frames_in_front_of_it(self, who: bool, wire_hex: str, status: str) -> None:
        good = write_frame(1, b"ok", mask_key=KEY if who else None)
        reader = FrameReader(who, max_frame_size=LIMIT)
        frames = reader.feed(good * 2 + bytes.fromhex(wire_hex))
        assert [(frame.payload, frame.last_in_buffer) for frame in frames] == [(b"ok", False), (b"ok", True)]
        self.check(reader, status)

    def check(self, reader: FrameReader, status: str) -> None:
        error = reader.error
        assert error is not None
        assert (error.status, error.close_code) == (status, CLOSE_CODES[status])
        assert error.sentence.startswith("received ")
        assert ", expected " in error.sentence
        with pytest.raises(CodecError) as again:
            reader.feed(b"\x81\x00")
        assert again.value is error
        assert str(error) == f"{error.sentence} ({status}, close code {error.close_code})"


def test_each_sentence_tells_its_fault() -> None:
    sentences = set()
    for who, wire_hex, _ in FAULTS:
        reader = FrameReader(who, max_frame_size=LIMIT)
        reader.feed(bytes.fromhex(wire_hex))
        assert reader.error is not None
        sentences.add(reader.error.sentence)
    assert len(sentences) == len(STATUS_NAMES)


@pytest.mark.parametrize(
    ("who", "wire_hex", "status"),
    [
        (SERVER, "037f", "ERR_RESERVED_OPCODE"),
        (SERVER, "0b7f", "ERR_RESERVED_OPCODE"),
        (SERVER, "087f", "ERR_CONTROL_FRAGMENTED"),
        (SERVER, "887f", "ERR_MASK_MISSING"),
        (CLIENT, "88ff", "ERR_MASK_UNEXPECTED"),
        (CLIENT, "887e0001", "ERR_CONTROL_TOO_LONG"),
        (CLIENT, "827e007d", "ERR_LENGTH_NOT_MINIMAL"),
        (CLIENT, "827f000000000000ffff", "ERR_LENGTH_NOT_MINIMAL"),
        (CLIENT, "827fffffffffffffffff", "ERR_LENGTH_TOP_BIT"),
    ],
)
def test_the_first_of_several_faults_counts(who: bool, wire_hex: str, status: str) -> None:
    reader = FrameReader(who, max_frame_size=0)
    reader.feed(bytes.fromhex(wire_hex))
    assert reader.error is not None
    assert reader.error.status == status


@pytest.mark.parametrize("limit", [0, 1, 124, 125, 126, 65535, 65536, LIMIT])
@pytest.mark.parametrize("who", [SERVER, CLIENT])
def test_max_frame_size(who: bool, limit: int) -> None:
    key = KEY if who else None
    reader = FrameReader(who, max_frame_size=limit)
    (frame,) = reader.feed(write_frame(2, bytes(limit), mask_key=key))
    assert len(frame.payload) == limit

    # The length alone decides: no key, no payload, no memory for it.
    header = frame_header(2, limit + 1, mask_key=key)
    assert reader.feed(header[:-4] if who else header) == []
    assert reader.error is not None
    assert (reader.error.status, reader.error.close_code) == ("ERR_FRAME_TOO_BIG", 1009)


def test_no_limit_lets_a_size_overflow() -> None:
    reader = FrameReader(CLIENT, max_frame_size=2**64 - 1)
    reader.feed(frame_header(2, 2**63 - 1))
    assert reader.error is not None
    assert reader.error.status == "ERR_FRAME_TOO_BIG"


def test_no_memory_for_a_frame() -> None:
    reader = FrameReader(CLIENT, max_frame_size=2**64 - 1)
    with pytest.raises(MemoryError):
        reader.feed(frame_header(2, 2**62 - 20))


def test_reserved_bits_are_passed_on() -> None:
    (frame,) = FrameReader(CLIENT).feed(b"\xf1\x00")
    assert (frame.rsv1, frame.rsv2, frame.rsv3) == (True, True, True)
