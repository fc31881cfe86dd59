"""The mask kernel: right at every length and alignment, and nothing touched outside its range.

Writes past the ends are caught by guard bytes; reads past them by the sanitizers, since the arrays end where the data does.
"""

from __future__ import annotations

from array import array
from itertools import product

import pytest
from tests.codec.bindings import mask, mask_into

KEY = bytes.fromhex("37fa213d")
LENGTHS = range(301)
PLAIN = bytes(i * 37 % 256 for i in range(300))
MASKED = bytes(byte ^ KEY[i % 4] for i, byte in enumerate(PLAIN))
GUARD = b"\xa5" * 80  # longer than any block of the kernel


def exact(data: bytes) -> array[int]:
    """The data in a memory block of exactly its size."""
    block = array("B", b"\0") * len(data)
    memoryview(block)[:] = data
    return block


def test_the_example_of_the_rfc() -> None:
    assert mask(b"Hello", KEY) == bytes.fromhex("7f9f4d5158")
    assert mask(bytes.fromhex("7f9f4d5158"), KEY) == b"Hello"


@pytest.mark.parametrize("alignment", range(16))
def test_in_place(alignment: int) -> None:
    offset = 64 + alignment
    for n in LENGTHS:
        data = bytearray(GUARD[:offset] + PLAIN[:n] + GUARD)
        mask_into(data, offset, data, offset, n, KEY)
        assert data == GUARD[:offset] + MASKED[:n] + GUARD


@pytest.mark.parametrize("to", range(8))
def test_copying(to: int) -> None:
    for origin, n in product(range(8), LENGTHS):
        source = bytes(origin) + PLAIN
        target = bytearray(GUARD + bytes(to + n) + GUARD)
        mask_into(target, 80 + to, source, origin, n, KEY)
        assert target == GUARD + bytes(to) + MASKED[:n] + GUARD
        assert source == bytes(origin) + PLAIN


@pytest.mark.parametrize("alignment", range(8))
def test_up_to_the_very_ends_of_a_block(alignment: int) -> None:
    for n in LENGTHS:
        block = exact(bytes(alignment) + PLAIN[:n])
        mask_into(block, alignment, block, alignment, n, KEY)
        assert block.tobytes() == bytes(alignment) + MASKED[:n]
        target = exact(bytes(alignment + n))
        mask_into(target, alignment, exact(PLAIN[:n]), 0, n, KEY)
        assert target.tobytes() == bytes(alignment) + MASKED[:n]


@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80\0\0\x01", b"\x01\x02\x03\x04"])
def test_keys(key: bytes) -> None:
    assert mask(PLAIN, key) == bytes(byte ^ key[i % 4] for i, byte in enumerate(PLAIN))


def test_a_megabyte() -> None:
    size = 2**20 + 3
    plain = (PLAIN * (size // len(PLAIN) + 1))[:size]
    keys = (KEY * (size // 4 + 1))[:size]
    expected = (int.from_bytes(plain, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")
    assert mask(plain, KEY) == expected


def test_neighbouring_ranges_of_one_buffer() -> None:
    data = bytearray(PLAIN + bytes(300) + PLAIN)
    mask_into(data, 300, data, 0, 300, KEY)
    assert data == PLAIN + MASKED + PLAIN
    mask_into(data, 0, data, 600, 300, KEY)
    assert data == MASKED + MASKED + PLAIN


def test_wrong_ranges_are_refused() -> None:
    data = bytearray(16)
    with pytest.raises(ValueError, match="9 bytes at offset 8, expected a range within 16"):
        mask_into(data, 8, data, 0, 9, KEY)
    with pytest.raises(ValueError, match="overlapping"):
        mask_into(data, 4, data, 0, 8, KEY)
    with pytest.raises(ValueError, match="3 bytes, expected 4"):
        mask(b"", b"abc")
    with pytest.raises(BufferError):
        mask_into(b"read only", 0, data, 0, 1, KEY)
