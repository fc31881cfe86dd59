"""A slow reference in Python for what the native fuzz targets check, and the inputs of their corpus held to it.

The targets compare each input with a reference in C (reference.h). That one, and the code under test, are judged once more by
this one, which was written from the standards too and shares nothing with either; for every input that found something new.

The layout of an input is told by the target: mask.c, utf8.c, stream.pxi with codec.pyx and messages.pyx, fields.pyx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.codec.bindings import CodecError, FrameReader, is_utf8, mask, parse_close, write_frame
from tests.messages.bindings import MessageReader

from picows.upgrade._fields import parse_fields

MOST = 2**63 - 1 - 14  # what max_frame_size is at most: half the address space
TAKEN = 2**24  # the bindings take the memory for a frame that is announced
LIMITS = [0, 1, 124, 125, 126, 127, 300, 5000, 65535, 65536, 65537, 2**20, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
MESSAGE_LIMITS = [0, 100, 1000, 2**64 - 1]
FRAME_LIMITS = [125, 126, 70000, 2**64 - 1]


class Fault(Exception):
    """Of the peer; the argument is its name."""


class Frame(NamedTuple):
    opcode: int
    fin: bool
    rsv1: bool
    rsv2: bool
    rsv3: bool
    payload: bytes


def pieces(wire: bytes, sizes: bytes) -> list[bytes]:
    """The bytes in pieces of these sizes, each less 1, taken in turn."""
    parts = []
    start = 0
    while start < len(wire):
        end = start + sizes[len(parts) % len(sizes)] + 1
        parts.append(wire[start:end])
        start = end
    return parts


def masked_by(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def text_is_whole(data: bytes) -> bool | None:
    """None: the last character is unfinished, and can be finished."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        rest = data[error.start :]
        # Of all that could follow, one of these makes a character of it if anything does.
        endings = [bytes([byte]) + more for byte in (0x80, 0x90, 0xA0) for more in (b"", b"\x80", b"\x80\x80")]
        return None if any(len(decoded(rest + ending)) == 1 for ending in endings) else False
    return True


def decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""


def check_close(payload: bytes) -> None:
    if len(payload) == 1:
        raise Fault("ERR_CLOSE_SIZE")
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    if code not in {*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006}:
        raise Fault("ERR_CLOSE_CODE")
    if not text_is_whole(payload[2:]):
        raise Fault("ERR_CLOSE_REASON")


def header(wire: bytes, masked: bool, limit: int) -> tuple[int, int, bytes]:
    """Sizes of header and payload, and the key. Raises IndexError when more bytes are needed to tell."""
    opcode = wire[0] & 15
    if opcode not in (0, 1, 2, 8, 9, 10):
        raise Fault("ERR_RESERVED_OPCODE")
    if opcode >= 8 and not wire[0] & 128:
        raise Fault("ERR_CONTROL_FRAGMENTED")
    if bool(wire[1] & 128) != masked:
        raise Fault("ERR_MASK_MISSING" if masked else "ERR_MASK_UNEXPECTED")
    size, width = wire[1] & 127, {126: 2, 127: 8}.get(wire[1] & 127, 0)
    if width:
        if opcode >= 8:
            raise Fault("ERR_CONTROL_TOO_LONG")
        known = wire[2 : 2 + width]
        if not known:
            raise IndexError
        least, most = (int.from_bytes(known.ljust(width, fill), "big") for fill in (b"\x00", b"\xff"))
        if most < (126 if width == 2 else 65536):
            raise Fault("ERR_LENGTH_NOT_MINIMAL")
        if least >= 2**63:
            raise Fault("ERR_LENGTH_TOP_BIT")
        size = least
    if size > limit:
        raise Fault("ERR_FRAME_TOO_BIG")
    end = 2 + width + (4 if masked else 0)
    if len(wire) < end:
        raise IndexError
    return end, size, wire[end - 4 : end] if masked else bytes(4)


def next_frame(wire: bytes, masked: bool, limit: int) -> tuple[Frame, int]:
    """The first frame and its size on the wire. Raises IndexError when more bytes are needed."""
    start, size, key = header(wire, masked, min(limit, MOST))
    end = start + size
    if len(wire) < end:
        raise IndexError
    payload = masked_by(wire[start:end], key)
    if wire[0] & 15 == 8:
        check_close(payload)
    return Frame(wire[0] & 15, *(bool(wire[0] & bit) for bit in (128, 64, 32, 16)), payload), end


def all_frames(wire: bytes, masked: bool, limit: int) -> tuple[list[Frame], str | None]:
    frames: list[Frame] = []
    while True:
        try:
            frame, size = next_frame(wire, masked, limit)
        except IndexError:
            return frames, None
        except Fault as fault:
            return frames, str(fault)
        frames.append(frame)
        wire = wire[size:]


def check_mask(data: bytes) -> None:
    key, plain = data[:4], data[5:]
    if len(data) >= 5:
        assert mask(plain, key) == masked_by(plain, key)


def check_utf8(data: bytes) -> None:
    text = data[3:]
    if len(data) >= 3:
        assert is_utf8(text) is text_is_whole(text)
        assert is_utf8(*pieces(text, data[:3])) is text_is_whole(text)


def check_codec(data: bytes) -> None:
    if len(data) < 5:
        return
    masked, limit, wire = bool(data[0] & 1), min(LIMITS[data[0] >> 1 & 15], TAKEN), data[5:]
    expected = all_frames(wire, masked, limit)
    for parts in ([wire], pieces(wire, data[2:5])):
        reader = FrameReader(masked, max_frame_size=limit, capacity=14 + data[1])
        frames: list[Frame] = []
        for part in parts:
            if reader.error is None:
                frames += [Frame(*frame[:6]) for frame in reader.feed(part)]
        assert (frames, reader.error and reader.error.status) == expected
    rest = wire
    for frame in expected[0]:
        start, size, key = header(rest, masked, MOST)
        assert rest.startswith(write_frame(*frame[:1], frame.payload, **switches(frame), mask_key=key if masked else None))
        rest = rest[start + size :]
    verdicts = []
    for judge in (check_close, parse_close):
        try:
            judge(wire)
            verdicts.append(None)
        except (Fault, CodecError) as error:
            verdicts.append(error.args[0])
    assert verdicts[0] == verdicts[1]


def switches(frame: Frame) -> dict[str, bool]:
    return {name: getattr(frame, name) for name in ("fin", "rsv1", "rsv2", "rsv3")}


class Refused(Exception):
    pass


class Inflater:
    """Stands for decompression, as in messages.pyx."""

    def inflate(self, data: bytes | memoryview, fin: bool, max_size: int) -> bytes | None:
        first = data[0] if data else 0
        if first == 0xFE:
            raise Refused
        if first == 0xFD:
            return None
        if first == 0xFC and max_size < 2000:
            return bytes(max_size + 1)
        inflated = b"".join(bytes([byte]) * (byte & 3) for byte in data)
        if len(inflated) > max_size:
            raise Refused
        return inflated


class Assembler:
    """Messages joined the slow way."""

    def __init__(self, max_size: int, inflates: bool) -> None:
        self.max_size = min(max_size, 2**63 - 1 - 1024)
        self.inflates = inflates
        self.parts: list[bytes] = []
        self.opcode = 0
        self.compressed = False

    def left(self) -> int:
        return self.max_size - sum(map(len, self.parts))

    def most(self) -> int:
        """How large a payload may be that becomes what is left."""
        left = self.left()
        return left + left // 8 + left // 64 + 64 if self.compressed else left

    def room(self) -> int:
        if not self.parts:
            self.compressed = self.inflates
        return max(self.most(), 125)

    def feed(self, frame: Frame) -> tuple[int, bytes] | None:
        if frame.rsv2 or frame.rsv3:
            raise Fault("ERR_RSV_RESERVED")
        if frame.rsv1 and not self.inflates:
            raise Fault("ERR_RSV1_UNEXPECTED")
        if frame.rsv1 and frame.opcode not in (1, 2):
            raise Fault("ERR_RSV1_MISPLACED")
        if frame.opcode >= 8:
            return None
        if bool(frame.opcode) == bool(self.parts):
            raise Fault("ERR_MESSAGE_UNFINISHED" if self.parts else "ERR_STRAY_CONTINUATION")
        if frame.opcode:
            self.opcode, self.compressed = frame.opcode, frame.rsv1
        if len(self.parts) == 1024 + self.max_size // 16:
            raise Fault("ERR_TOO_MANY_FRAGMENTS")
        if len(frame.payload) > self.most():
            raise Fault("ERR_MESSAGE_TOO_BIG")
        part: bytes | None = frame.payload
        if self.compressed:
            part = Inflater().inflate(frame.payload, frame.fin, self.left())
        if part is None:
            raise TypeError
        if len(part) > self.left():
            raise Fault("ERR_MESSAGE_TOO_BIG")
        self.parts.append(part)
        message = b"".join(self.parts)
        if self.opcode == 1:
            whole = text_is_whole(message)
            if whole is False or (frame.fin and whole is None):
                raise Fault("ERR_TEXT_NOT_UTF8")
        if not frame.fin:
            return None
        self.parts = []
        return self.opcode, message


def outcomes(frames: Iterator[Frame], feed: Assembler | MessageReader) -> Iterator[object]:
    """What comes of each frame: a message, nothing or a fault, which is the last."""
    for frame in frames:
        try:
            if isinstance(feed, Assembler):
                yield feed.feed(frame)
                yield feed.room()
            else:
                message = feed.feed(frame.opcode, frame.payload, **switches(frame))
                yield message and tuple(message[:2])
                yield feed.room
        except (Fault, CodecError, Refused, TypeError) as error:
            yield error.args[0] if isinstance(error, (Fault, CodecError)) else type(error)
            return


def check_messages(data: bytes) -> None:
    if len(data) < 5:
        return
    max_size, inflates = MESSAGE_LIMITS[data[0] >> 2 & 3], bool(data[0] & 2)
    reader = MessageReader(max_size, Inflater() if inflates else None)
    frames, _ = all_frames(data[5:], bool(data[0] & 1), FRAME_LIMITS[data[0] >> 4 & 3])
    assert list(outcomes(iter(frames), reader)) == list(outcomes(iter(frames), Assembler(max_size, inflates)))


FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*((?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)[\t ]*\r\n")


def check_fields(data: bytes) -> None:
    if len(data) < 3:
        return
    start = min(data[0], data[1], len(data))
    at = start
    fields = []
    while match := FIELD.match(data, at):
        fields.append((match[1].decode(), match[2].decode("utf-8", "surrogateescape")))
        at = match.end()
    assert parse_fields(data, start, {}) == (fields, at)


CHECKS = {
    "mask": check_mask,
    "utf8": check_utf8,
    "codec": check_codec,
    "messages": check_messages,
    "fields": check_fields,
}
