"""The bytes of the live fuzzer: messages that carry a number and a checksum, frames, and the account of what was sent.

Every message is a row of chunks. A chunk is 32 hexadecimal digits (who made it, its number, the size and the CRC-32 of its
body), then the body, all of it ASCII, so that it may travel as TEXT, BINARY, in fragments or compressed, and is known again
wherever it arrives, as an echo or a broadcast too.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
HEAD = 32
LARGEST = 3 * 1024 * 1024

_words = random.Random(1)
_POOL = b" ".join(b"%d" % _words.getrandbits(_words.choice([4, 12, 40])) for _ in range(30_000))
_POOL *= (LARGEST + 200_000) // len(_POOL)


class Damaged(Exception):
    """What arrived is not what may be sent."""


class Key(NamedTuple):
    """A chunk's name: who made it, and its number there."""

    origin: int
    number: int


def make_chunk(key: Key, size: int, chance: random.Random) -> bytes:
    at = chance.randrange(len(_POOL) - size)
    body = _POOL[at : at + size]
    return b"%08x%08x%08x%08x%b" % (*key, size, zlib.crc32(body), body)


def keys_in(message: bytes) -> list[Key]:
    keys = []
    at = 0
    while at < len(message):
        try:
            origin, number, size, checksum = (int(message[at + i : at + i + 8], 16) for i in (0, 8, 16, 24))
        except ValueError:
            raise Damaged(f"no chunk begins with {message[at : at + HEAD]!r}, at {at} of {len(message)}") from None
        at += HEAD + size
        if at > len(message):
            raise Damaged(f"chunk {number} of {origin:x} has {size} bytes, {at - len(message)} of them are missing")
        if zlib.crc32(message[at - size : at]) != checksum:
            raise Damaged(f"chunk {number} of {origin:x} has {size} bytes with a wrong checksum")
        keys.append(Key(origin, number))
    return keys


def encode(opcode: int, payload: bytes, *, mask: bytes | None, fin: bool = True, rsv1: bool = False) -> bytes:
    size = len(payload)
    bit = 0 if mask is None else 128
    head = bytes([fin << 7 | rsv1 << 6 | opcode])
    if size <= 125:
        head += bytes([bit | size])
    elif size <= 65535:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    return head + payload if mask is None else head + mask + apply_mask(payload, mask)


def apply_mask(payload: bytes, key: bytes) -> bytes:
    keys = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(len(payload), "big")


class Assembler:
    """Whole messages out of frames; checks their order, the reserved bits, and that nothing follows a CLOSE."""

    def __init__(self, inflate_forgets: bool | None = None) -> None:
        self._forgets = inflate_forgets  # None: nothing may be compressed
        self._inflater = zlib.decompressobj(-15)
        self._fragments: list[bytes] | None = None
        self._compressed = False
        self.closed = False

    def feed(self, opcode: int, payload: bytes, fin: bool, rsv: int) -> tuple[int, bytes] | None:
        """The message that a frame completes, if it does."""
        if self.closed:
            raise Damaged(f"a frame of type {opcode} with {len(payload)} bytes follows the CLOSE")
        if opcode & 8:
            if not fin or rsv or len(payload) > 125 or opcode not in (CLOSE, PING, PONG):
                raise Damaged(f"a faulty control frame: type {opcode}, fin {fin}, rsv {rsv}, {len(payload)} bytes")
            self.closed = opcode == CLOSE
            return opcode, payload
        if opcode not in (CONTINUATION, TEXT, BINARY) or (opcode == CONTINUATION) is (self._fragments is None):
            raise Damaged(f"a frame of type {opcode}, {'no' if self._fragments is None else 'a'} message is under way")
        if rsv and (rsv != 4 or self._forgets is None or opcode == CONTINUATION):
            raise Damaged(f"reserved bits {rsv} in a frame of type {opcode}")
        if self._fragments is None:
            self._fragments = []
            self._compressed = bool(rsv)
            self._opcode = opcode
        self._fragments.append(payload)
        if not fin:
            return None
        message, self._fragments = b"".join(self._fragments), None
        return self._opcode, self._inflate(message) if self._compressed else message

    def _inflate(self, payload: bytes) -> bytes:
        try:
            return self._inflater.decompress(payload + b"\0\0\xff\xff")
        except zlib.error as error:
            raise Damaged(f"a compressed message cannot be inflated: {error}") from None
        finally:
            if self._forgets:
                self._inflater = zlib.decompressobj(-15)


class FrameReader:
    """Frames out of the bytes that came, checked as a strict peer does."""

    def __init__(self, masked: bool) -> None:
        self._masked = masked
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes, bool, int]]:
        """The frames that are complete now: opcode, payload, fin, reserved bits."""
        self._bytes += data
        frames = []
        at = 0
        while (found := self._next(at)) is not None:
            frame, at = found
            frames.append(frame)
        del self._bytes[:at]
        return frames

    @property
    def unfinished(self) -> int:
        return len(self._bytes)

    def _next(self, at: int) -> tuple[tuple[int, bytes, bool, int], int] | None:
        data = self._bytes
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        if bool(second & 128) is not self._masked:
            raise Damaged(f"a frame that begins with {bytes(data[at : at + 14]).hex()} has the wrong mask bit")
        size, head = second & 127, 2
        if size > 125:
            head = 4 if size == 126 else 10
            if len(data) - at < head:
                return None
            least = size
            size = int.from_bytes(data[at + 2 : at + head], "big")
            if size < (126 if least == 126 else 65536) or size > 2 * LARGEST:
                raise Damaged(f"a frame with the length {size} begins with {bytes(data[at : at + 14]).hex()}")
        begin = at + head + 4 * self._masked
        end = begin + size
        if len(data) < end:
            return None
        payload = bytes(data[begin:end])
        if self._masked:
            payload = apply_mask(payload, bytes(data[begin - 4 : begin]))
        return (first & 15, payload, bool(first & 128), first >> 4 & 7), end


class Entry:
    """One chunk that was given to a send, and what the send said of it."""

    __slots__ = ("key", "taken", "until")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.taken: bool | None = None  # None: it was not told
        self.until = 0  # a broadcast may follow what callbacks sent during it: those entries


class Ledger:
    """What one side sent, in the order of its calls."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def open(self, key: Key) -> Entry:
        entry = Entry(key)
        self.entries.append(entry)
        return entry

    def fault(self, came: list[Key], complete: bool) -> str | None:
        """What is wrong with what came: it has to be a prefix of what was taken, or all of it."""
        late: list[tuple[int, Entry]] = []
        at = 0
        for i, key in enumerate(came):
            for _, entry in late:
                if entry.key == key:
                    late.remove((_, entry))
                    break
            else:
                at, fault = self._follow(at, key, late)
                if fault is not None:
                    return f"{fault}, after {i} chunks of {len(came)}"
        missing = [entry.key for _, entry in late if entry.taken]
        missing += [entry.key for entry in self.entries[at:] if entry.taken]
        if missing and complete:
            return f"{len(missing)} chunks of {len(self.entries)} are missing at the end, from {missing[0]} on; {len(came)} came"
        return None

    def _follow(self, at: int, key: Key, late: list[tuple[int, Entry]]) -> tuple[int, str | None]:
        """Go on to the entry with this key."""
        # What was echoed may have been dropped once, and taken later.
        last = max((i for i in range(at, len(self.entries)) if self.entries[i].key == key), default=at)
        for i in range(at, len(self.entries)):
            entry = self.entries[i]
            if entry.key == key and (entry.taken is not False or i == last):
                for until, skipped in late:
                    if skipped.taken and i > until:
                        return i, f"{skipped.key} of a broadcast was lost or overtaken by {key}"
                late[:] = [(until, skipped) for until, skipped in late if i <= until]
                if entry.taken is False:
                    return i, f"{key} came, but send said that it was not taken"
                return i + 1, None
            if entry.taken or entry.until:
                if entry.taken and entry.until <= i:
                    return i, f"{entry.key} was lost or overtaken by {key}"
                late.append((entry.until, entry))
        return at, f"{key} came, but was never sent here, or twice, or earlier"


class LatestLedger:
    """What one side sent under names, where a newer message may have taken the place of an older one."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Entry]] = {}
        self._places: dict[Key, tuple[str, int]] = {}

    def open(self, name: str, key: Key) -> Entry:
        row = self._rows.setdefault(name, [])
        self._places[key] = name, len(row)
        row.append(Entry(key))
        return row[-1]

    def last(self, name: str) -> int:
        """Until where, for the entry of a broadcast that has ended."""
        return len(self._rows[name]) - 1

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def gone(self, came: int) -> int | None:
        """How many were taken and did not come; None if that is not known."""
        taken = [entry.taken for row in self._rows.values() for entry in row]
        return None if None in taken else taken.count(True) - came

    def fault(self, came: list[Key], complete: bool) -> str | None:
        """What is wrong with what came: never an older one behind a newer one, and the newest at the end."""
        seen: dict[str, list[int]] = {name: [] for name in self._rows}
        for key in came:
            name, place = self._places[key]
            row, before = self._rows[name], seen[name]
            if row[place].taken is False:
                return f"{key} came under {name}, but send_latest said that it was not taken"
            if place in before:
                return f"{key} came twice under {name}"
            for other in before:
                if _is_before(row, place, other):
                    return f"{key} came under {name} behind {row[other].key}, which is newer"
            before.append(place)
        for name, row in self._rows.items():
            for place, entry in enumerate(row):
                newest = all(_is_before(row, other, place) for other in seen[name])
                if complete and entry.taken and place not in seen[name] and newest:
                    return f"{entry.key}, the newest under {name} of those before the end, is missing; {len(came)} came"
        return None


def _is_before(row: list[Entry], one: int, other: int) -> bool:
    """Whether one was sent before the other beyond doubt."""
    return other > max(one, row[one].until)
