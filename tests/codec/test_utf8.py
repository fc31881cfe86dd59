"""The UTF-8 validator against Python's own decoder, whole and in pieces."""

from __future__ import annotations

import codecs
import sys
from array import array
from itertools import product

import pytest
from tests.codec.bindings import is_utf8

# The first and the last byte of every class the grammar of RFC 3629 knows.
EDGES = bytes.fromhex("007f808f909fa0bfc0c1c2dfe0e1ecedeeeff0f1f3f4f5ff")


def expected(data: bytes) -> bool | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data)
    except UnicodeDecodeError:
        return False
    return None if decoder.getstate()[0] else True


def surrogate_cut(data: bytes) -> bool:
    """Python keeps ED A0 waiting, though no third byte can make it valid; we refuse it at once."""
    return data[-2:-1] == b"\xed" and data[-1] >= 0xA0


def test_every_character() -> None:
    code_points = array("I", [*range(0xD800), *range(0xE000, 0x110000)])
    everything = code_points.tobytes().decode(f"utf-32-{sys.byteorder[0]}e")
    assert is_utf8(everything.encode()) is True


def test_every_surrogate() -> None:
    for surrogate in range(0xD800, 0xE000):
        assert is_utf8(chr(surrogate).encode("utf-8", "surrogatepass")) is False


@pytest.mark.parametrize(("leads", "tail"), [(range(256), 0), (range(256), 1), (range(0xC0, 256), 2)])
def test_every_lead_with_every_edge(leads: range, tail: int) -> None:
    for lead in leads:
        for rest in product(EDGES, repeat=tail):
            data = bytes([lead, *rest])
            if not surrogate_cut(data):
                assert is_utf8(data) is expected(data), data


@pytest.mark.parametrize("lead", [0xF0, 0xF1, 0xF3, 0xF4, 0xF5])
def test_four_bytes(lead: int) -> None:
    for rest in product(EDGES, repeat=3):
        data = bytes([lead, *rest])
        if not surrogate_cut(data):
            assert is_utf8(data) is expected(data), data


@pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
def test_every_cut_and_every_place_in_a_word(character: str) -> None:
    encoded = character.encode()
    for before, after in product(range(18), range(10)):
        data = b"x" * before + encoded + b"y" * after
        for cut in range(len(data) + 1):
            assert is_utf8(data[:cut]) is (None if before < cut < before + len(encoded) else True)
            assert is_utf8(data[:cut], data[cut:]) is True
            assert is_utf8(data[:cut], b"\xff", data[cut:]) is False


@pytest.mark.parametrize("around", ["a", "é", "€", "😀"])
def test_every_edge_at_every_place_of_long_text(around: str) -> None:
    # Long enough for every block that is compared at once, for its end, and for the bytes in front of it.
    for size in (32, 35, 66, 67, 68, 131, 140):
        text = bytearray((around * size).encode()[:size])
        for place, edge in product(range(size), EDGES):
            data = bytes(text[:place]) + bytes([edge]) + bytes(text[place + 1 :])
            if not surrogate_cut(data):
                assert is_utf8(data) is expected(data), data


BOUNDARIES = "80 c180 c27f e09f80 e0a07f ed9f80 eda080 ee8080 efbfbf f08f8080 f0908080 f48fbfbf f4908080 f5808080 f09080"


@pytest.mark.parametrize("sequence", BOUNDARIES.split())
def test_every_boundary_of_the_grammar_at_every_place(sequence: str) -> None:
    for before, after in product(range(70), (0, 1, 2, 3, 31, 67)):
        data = b"x" * before + bytes.fromhex(sequence) + b"x" * after
        if not surrogate_cut(data):
            assert is_utf8(data) is expected(data), data


@pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
def test_every_cut_of_long_text(character: str) -> None:
    data = (character * 150).encode()[:150]
    for cut in range(len(data) + 1):
        assert is_utf8(data[:cut], data[cut:]) is expected(data)
        assert is_utf8(data[:cut]) is expected(data[:cut])
        assert is_utf8(data[:cut], b"\xff" + data[cut:]) is False


@pytest.mark.parametrize("error", [b"\x80", b"\xc3x", b"\xe2\x82x", b"\xff", b"\xc0"])
def test_no_valid_text_makes_up_for_an_error(error: bytes) -> None:
    for before, after in product(range(18), (*range(16, 24), 40, 80)):
        start, rest = b"x" * before + error, b"x" * after
        assert is_utf8(start + rest) is False
        assert is_utf8(start, rest) is False
        assert is_utf8(start[:-1], start[-1:] + rest) is False


def test_nothing_is_valid() -> None:
    assert is_utf8() is True
    assert is_utf8(b"", b"") is True
