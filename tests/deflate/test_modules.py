"""The same with other modules in place of zlib, where they are installed."""

from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib
from types import ModuleType

import pytest

from picows.deflate import Agreement, WSDeflate
from picows.errors import WSProtocolError

NAMES = ["zlib", "zlib_ng.zlib_ng", "isal.isal_zlib"]
LEVELS = {"isal.isal_zlib": [0, 1, 2, 3]}


@pytest.fixture
def module(name: str) -> ModuleType:
    return pytest.importorskip(name)


@pytest.fixture
def other(other_name: str) -> ModuleType:
    return pytest.importorskip(other_name)


def some_messages(chance: random.Random) -> list[bytes]:
    words = [chance.randbytes(chance.randrange(3, 60)) for _ in range(20)]
    text = b"".join(chance.choices(words, k=2000))
    return [b"Hello", b"", text[:300], text, chance.randbytes(1000), bytes(300_000), b"Hello"]


@pytest.mark.parametrize(("name", "other_name"), [pair for pair in itertools.product(NAMES, NAMES) if pair != ("zlib", "zlib")])
@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("bits", range(8, 16))
def test_one_module_understands_another(name: str, module: ModuleType, other: ModuleType, bits: int, forgets: bool) -> None:
    messages = some_messages(random.Random(bits))
    for level, mem_level in itertools.product(LEVELS.get(name, [1, 6, 9]), [1, 5, 9]):
        sender = Agreement(WSDeflate(zlib=module, level=level, mem_level=mem_level), bits, bits, forgets, forgets)
        receiver = Agreement(WSDeflate(zlib=other, level=1), bits, bits, forgets, forgets)
        deflater, inflater = sender.deflater(False), receiver.inflater(True)
        for data in messages:
            half = len(data) // 2
            came = inflater.inflate(deflater.compress(data[:half], False), False, half)
            came += inflater.inflate(deflater.compress(data[half:]), True, len(data) - half)
            assert came == data


@pytest.mark.parametrize("name", NAMES)
def test_final_blocks_and_faults(name: str, module: ModuleType) -> None:
    inflater = Agreement(WSDeflate(zlib=module, level=1), 15, 15, False, False).inflater(False)
    final_hello = bytes.fromhex("f348cdc9c90700")
    for payload in (final_hello, final_hello + b"\0", b"", final_hello * 3, final_hello + b"\1", final_hello):
        assert inflater.inflate(payload, True, 15) == b"Hello" * payload.count(final_hello)
    for payload, code in ((b"\7", 1007), (b"\xf2H", 1007), (final_hello * 4, 1009), (b"\3\0" * 1001, 1008)):
        inflater = Agreement(WSDeflate(zlib=module, level=1), 15, 15, False, False).inflater(False)
        with pytest.raises(WSProtocolError) as caught:
            inflater.inflate(payload, True, 15)
        assert caught.value.code == code


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb(name: str, module: ModuleType) -> None:
    deflating = zlib.compressobj(9, wbits=-15)
    bomb = (deflating.compress(bytes(64 << 20)) + deflating.flush(zlib.Z_SYNC_FLUSH)) * 16
    inflater = Agreement(WSDeflate(zlib=module, level=1), 15, 15, False, False).inflater(False)
    tracemalloc.start()
    try:
        with pytest.raises(WSProtocolError, match=r"has over 1048576 bytes"):
            inflater.inflate(bomb, True, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["isal.isal_zlib"])
def test_levels(name: str, module: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^isal.isal_zlib takes no level=6 with mem_level=5: "):
        WSDeflate(zlib=module)
