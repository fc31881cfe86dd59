"""What holds for all messages and all frames, however the messages are cut."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.codec.bindings import CodecError
from tests.messages.bindings import MessageReader

from picows import WSProtocolError
from picows.deflate import Inflater

TEXT, BINARY, PING = 1, 2, 9
LIMIT = 60

properties = settings(max_examples=200, deadline=None)


class Frame(NamedTuple):
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False


class Verbatim:
    def inflate(self, data: memoryview, fin: bool, max_size: int) -> bytes:
        return bytes(data)


cuts = st.lists(st.integers(min_value=0), max_size=6)
texts = st.text(max_size=40).map(str.encode) | st.text("aé€😀", min_size=30, max_size=200).map(str.encode)
messages = st.tuples(st.just(TEXT), texts) | st.tuples(st.just(BINARY), st.binary(max_size=300))
scraps = st.sampled_from([b"", b"a", "é".encode(), b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"\xff", b"x" * 29, b"x" * 90])
rarely = st.sampled_from([False] * 15 + [True])
any_frame = st.builds(
    Frame, st.sampled_from([0, 0, 0, 1, 2, 9]), scraps, st.booleans(), st.sampled_from([False, False, True]), rarely, rarely
)


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(ends, ends[1:])]


def fragments(opcode: int, payload: bytes, places: list[int], rsv1: bool = False) -> list[Frame]:
    """A message in frames, with a ping behind each but the last."""
    parts = pieces(payload, places)
    frames = []
    for i, part in enumerate(parts):
        frames += [Frame(opcode if i == 0 else 0, part, i == len(parts) - 1, rsv1 and i == 0), Frame(PING, part[:5])]
    return frames[:-1]


def read(reader: MessageReader, frames: list[Frame]) -> tuple[list[tuple[int, bytes]], str | None, int]:
    """The messages, the fault, and how many frames were taken."""
    came = []
    for taken, (opcode, payload, *bits) in enumerate(frames):
        fin, rsv1, rsv2, rsv3 = bits
        try:
            message = reader.feed(opcode, payload, fin=fin, rsv1=rsv1, rsv2=rsv2, rsv3=rsv3)
        except CodecError as error:
            return came, error.status, taken
        if message is not None:
            came.append((message.opcode, message.payload))
    return came, None, len(frames)


def utf8_so_far(data: bytes, complete: bool) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and not complete
    return True


def expected(frames: list[Frame], inflates: bool) -> tuple[list[tuple[int, bytes]], str | None, int]:
    """The same by the rules, written down in the plainest way. Compression changes nothing here."""
    came: list[tuple[int, bytes]] = []
    opcode, joined = 0, b""
    for taken, frame in enumerate(frames):
        fault = None
        compressed = frame.rsv1 if frame.opcode in (TEXT, BINARY) else None
        if frame.rsv2 or frame.rsv3:
            fault = "ERR_RSV_RESERVED"
        elif frame.rsv1 and not inflates:
            fault = "ERR_RSV1_UNEXPECTED"
        elif frame.rsv1 and compressed is None:
            fault = "ERR_RSV1_MISPLACED"
        elif frame.opcode == PING:
            continue
        elif frame.opcode and opcode:
            fault = "ERR_MESSAGE_UNFINISHED"
        elif not frame.opcode and not opcode:
            fault = "ERR_STRAY_CONTINUATION"
        else:
            opcode, joined = opcode or frame.opcode, joined + frame.payload
            if len(joined) > LIMIT:
                fault = "ERR_MESSAGE_TOO_BIG"
            elif opcode == TEXT and not utf8_so_far(joined, frame.fin):
                fault = "ERR_TEXT_NOT_UTF8"
        if fault:
            return came, fault, taken
        if frame.fin:
            came.append((opcode, joined))
            opcode, joined = 0, b""
    return came, None, len(frames)


@properties
@given(st.lists(st.tuples(messages, cuts), max_size=5))
def test_messages_cut_anywhere_come_out_the_same(sent):  # type: ignore[no-untyped-def]
    frames = [frame for (opcode, payload), places in sent for frame in fragments(opcode, payload, places)]
    limit = max((len(payload) for (_, payload), _ in sent), default=0)
    assert read(MessageReader(limit), frames) == ([message for message, _ in sent], None, len(frames))


@properties
@given(st.lists(st.tuples(messages, cuts, st.booleans()), max_size=5))
def test_compressed_messages_cut_anywhere_come_out_the_same(sent):  # type: ignore[no-untyped-def]
    compressor = zlib.compressobj(wbits=-15)
    frames = []
    for (opcode, payload), places, packs in sent:
        if packs:
            payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        frames += fragments(opcode, payload, places, packs)
    limit = max((len(payload) for (_, payload), *_ in sent), default=0)
    reader = MessageReader(limit, Inflater(zlib, 15, False))
    assert read(reader, frames) == ([message for message, *_ in sent], None, len(frames))


@properties
@given(st.lists(any_frame, max_size=12), st.booleans())
def test_any_frames_end_as_the_rules_say(frames, inflates):  # type: ignore[no-untyped-def]
    assert read(MessageReader(LIMIT, Verbatim() if inflates else None), frames) == expected(frames, inflates)


@properties
@given(st.lists(any_frame, max_size=12))
def test_the_same_with_real_inflation_ends_in_a_documented_error(frames):  # type: ignore[no-untyped-def]
    try:
        read(MessageReader(LIMIT, Inflater(zlib, 15, False)), frames)
    except WSProtocolError as error:
        assert error.code in (1007, 1009)


@properties
@given(texts, st.integers(min_value=0), st.binary(max_size=2), cuts)
def test_damaged_text_fails_in_the_frame_of_its_first_bad_byte(text, place, damage, places):  # type: ignore[no-untyped-def]
    place %= len(text) + 1
    data = text[:place] + damage + text[place + len(damage) :]
    parts = pieces(data, places)
    ends = [sum(map(len, parts[: i + 1])) for i in range(len(parts))]
    bad = [i for i, end in enumerate(ends) if not utf8_so_far(data[:end], i == len(parts) - 1)]
    frames = [Frame(0 if i else TEXT, part, i == len(parts) - 1) for i, part in enumerate(parts)]
    fine = [] if bad else [(TEXT, data)]
    fault = "ERR_TEXT_NOT_UTF8" if bad else None
    assert read(MessageReader(2000), frames) == (fine, fault, bad[0] if bad else len(frames))
