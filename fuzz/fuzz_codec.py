"""Random bytes for the frame codec: only documented errors escape, and no verdict depends on how the bytes were cut.

    python fuzz/fuzz_codec.py --seconds 30 [--seed 7]

Valid streams are damaged a little, since random bytes alone hardly ever pass the first header. (Fuzzers guided by the
coverage of Python code, like atheris, see nothing of this C code: tried, their corpus stayed at one byte.)
The seed is printed and can be given again; a failure prints the input that caused it.
"""

from __future__ import annotations

import random

from damage import run
from tests.codec.bindings import CodecError, FrameReader, ParsedFrame, is_utf8, mask, parse_close, write_frame

OPTIONS = 4  # bytes of an input that choose the reader and the cuts; the rest comes from the wire
LIMITS = [0, 124, 125, 126, 5000, 65535, 65536, 2**20]
SMALL = [0, 1, 7, 8, 63, 64, 65, 125, 126, 127, 300]
LARGE = [65535, 65536]


def read(reader: FrameReader, pieces: list[bytes]) -> tuple[list[ParsedFrame], str | None]:
    frames: list[ParsedFrame] = []
    for piece in pieces:
        frames += reader.feed(piece)
        if reader.error is not None:
            return frames, reader.error.status
    return frames, None


def cut(wire: bytes, seed: int) -> list[bytes]:
    """Pieces of many sizes; the first bytes singly when the seed is even."""
    chance = random.Random(seed)
    places = [0]
    while places[-1] < len(wire):
        single = seed % 2 == 0 and len(places) < 50
        places.append(places[-1] + (1 if single else chance.choice([1, 2, 13, 14, 15, 200, 3000])))
    return [wire[start:end] for start, end in zip(places, places[1:])]


def check_frame(frame: ParsedFrame, key: bytes | None) -> None:
    opcode, fin, rsv1, rsv2, rsv3, payload = frame[:6]
    again = write_frame(opcode, payload, fin=fin, rsv1=rsv1, rsv2=rsv2, rsv3=rsv3, mask_key=key)
    assert FrameReader(key is not None, max_frame_size=len(payload)).feed(again) == [(*frame[:6], 0, True)]
    if opcode == 8:
        parse_close(payload)
    try:
        payload.decode()
        valid = True
    except UnicodeDecodeError:
        valid = False
    assert (is_utf8(payload) is True) == valid


def check(data: bytes) -> None:
    """The test itself, for one input."""
    if len(data) < OPTIONS:
        return
    masked = bool(data[0] & 1)
    limit = LIMITS[data[0] >> 1 & 7]
    capacity = 14 + data[1]
    wire = data[OPTIONS:]

    reader = FrameReader(masked, max_frame_size=limit, capacity=len(wire) + 14)
    frames, fault = read(reader, [wire])
    if frames:
        assert frames[-1].last_in_buffer
        assert frames[-1].tail_size == reader.unread
        assert not any(frame.last_in_buffer for frame in frames[:-1])
    in_pieces = read(FrameReader(masked, max_frame_size=limit, capacity=capacity), cut(wire, data[2]))
    assert ([frame[:6] for frame in frames], fault) == ([frame[:6] for frame in in_pieces[0]], in_pieces[1])

    key = wire[:4] if masked and len(wire) >= 4 else None
    for frame in frames:
        check_frame(frame, key)
    try:
        parse_close(wire)
    except CodecError as error:
        assert error.close_code in (1002, 1007)
    assert mask(mask(wire, data[:4]), data[:4]) == wire


def some_input(chance: random.Random) -> bytes:
    """Options and a stream that is valid at first, then damaged a little, or not at all."""
    masked = chance.random() < 0.5
    stream = bytearray()
    for _ in range(chance.randrange(6)):
        opcode = chance.choice([0, 1, 2, 8, 9, 10])
        if opcode == 8:
            payload = chance.choice([b"", b"\x03\xe8", b"\x03\xf3bye", b"\x0b\xb8" + "é€😀".encode()])
        elif opcode > 8:
            payload = chance.randbytes(chance.choice([0, 1, 125]))
        else:
            payload = chance.randbytes(chance.choice(SMALL if chance.random() < 0.95 else LARGE))
        fin = opcode > 7 or chance.random() < 0.7
        stream += write_frame(opcode, payload, fin=fin, mask_key=chance.randbytes(4) if masked else None)
    for _ in range(chance.choice([0, 0, 1, 2, 5])):
        place = chance.randrange(len(stream) + 1)
        damage = chance.randrange(4)
        if damage == 0:
            del stream[place:]
        elif damage == 1:
            stream[place:place] = chance.randbytes(chance.randrange(1, 12))
        elif damage == 2:
            del stream[place : place + chance.randrange(1, 12)]
        elif stream:
            stream[place % len(stream)] ^= 1 << chance.randrange(8)
    options = bytearray(chance.randbytes(OPTIONS))
    options[0] = options[0] & 0xFE | masked
    return bytes(options + stream)


if __name__ == "__main__":
    run(__doc__, some_input, check)
