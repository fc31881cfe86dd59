"""What holds for all frames and all bytes, however they are cut."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.codec.bindings import FrameReader, ParsedFrame, is_utf8, mask, write_frame

properties = settings(max_examples=150, deadline=None)

bits = st.fixed_dictionaries({name: st.booleans() for name in ("rsv1", "rsv2", "rsv3")})
payloads = st.binary(max_size=300) | st.builds(bytes, st.sampled_from([65535, 65536, 70000]))
data_frames = st.tuples(st.sampled_from([0, 1, 2]), payloads, bits, st.booleans())
control_frames = st.tuples(st.sampled_from([9, 10]), st.binary(max_size=125), bits, st.just(True))
frame_lists = st.lists(data_frames | control_frames, max_size=8)
keys = st.none() | st.binary(min_size=4, max_size=4)
cut_lists = st.lists(st.integers(min_value=0), max_size=12)
# Headers that make it past the first bytes are rare among random ones: begin some of them well.
starts = st.sampled_from([b"", b"\x81\x03abc", b"\x88\x02", b"\x82\x7e", b"\x82\xfe\x01\x00", b"\x82\x7f\0\0\0\0\0\x01"])
wires = st.lists(st.builds(lambda start, rest: start + rest, starts, st.binary(max_size=24)), max_size=6).map(b"".join)


def pieces(wire: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    return [wire[a:b] for a, b in zip(places, places[1:])]


def read(reader: FrameReader, parts: list[bytes]) -> tuple[list[tuple[object, ...]], str | None]:
    """The frames, without what depends on how the bytes arrived, and the fault."""
    frames: list[ParsedFrame] = []
    for part in parts:
        if reader.error is None:
            frames += reader.feed(part)
    return [frame[:6] for frame in frames], reader.error.status if reader.error is not None else None


@properties
@given(frame_lists, keys, cut_lists, st.integers(14, 100))
def test_frames_cut_anywhere_come_out_the_same(frames, key, cuts, capacity):  # type: ignore[no-untyped-def]
    wire = b"".join(write_frame(op, payload, fin=fin, mask_key=key, **rsv) for op, payload, rsv, fin in frames)
    came, fault = read(FrameReader(key is not None, capacity=capacity), pieces(wire, cuts))
    assert came == [(op, fin, rsv["rsv1"], rsv["rsv2"], rsv["rsv3"], payload) for op, payload, rsv, fin in frames]
    assert fault is None


@properties
@given(frame_lists, keys)
def test_what_is_known_of_the_bytes_behind(frames, key):  # type: ignore[no-untyped-def]
    each = [write_frame(op, payload, fin=fin, mask_key=key, **rsv) for op, payload, rsv, fin in frames]
    ping = write_frame(9, b"six", mask_key=key)[:-1]  # never complete
    wire = b"".join(each) + ping
    came = FrameReader(key is not None, capacity=len(wire) + 14).feed(wire)
    tails = [sum(map(len, each[i + 1 :])) + len(ping) for i in range(len(each))]
    assert [frame.tail_size for frame in came] == tails
    assert [frame.last_in_buffer for frame in came] == [i == len(each) - 1 for i in range(len(each))]


@properties
@given(wires, st.booleans(), cut_lists, st.integers(14, 100), st.sampled_from([0, 125, 300, 2**16, 2**20]))
@example(b"\x88\x01\x00", False, [1, 2], 14, 125)
@example(b"\x82\x7f\0\0\0\0\0\0", False, [3, 7], 14, 125)
def test_any_bytes_get_the_same_verdict_however_cut(wire, masked, cuts, capacity, limit):  # type: ignore[no-untyped-def]
    whole = read(FrameReader(masked, max_frame_size=limit), [wire])
    assert read(FrameReader(masked, max_frame_size=limit, capacity=capacity), pieces(wire, cuts)) == whole
    assert read(FrameReader(masked, max_frame_size=limit), [bytes([byte]) for byte in wire]) == whole


@properties
@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_twice_is_no_masking(data, key):  # type: ignore[no-untyped-def]
    once = mask(data, key)
    assert once == bytes(byte ^ key[i % 4] for i, byte in enumerate(data))
    assert mask(once, key) == data


@properties
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode), cut_lists)
def test_text_is_judged_as_python_does_however_cut(data, cuts):  # type: ignore[no-untyped-def]
    try:
        data.decode()
        valid = True
    except UnicodeDecodeError:
        valid = False
    assert (is_utf8(data) is True) == valid
    assert is_utf8(*pieces(data, cuts)) is is_utf8(data)
