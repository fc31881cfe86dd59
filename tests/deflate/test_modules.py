"""The same with other modules in place of zlib, where they are installed."""

from __future__ import annotations

import importlib.util
import itertools
import random
import subprocess
import sys
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
        WSDeflate(zlib=module, level=6)


@pytest.mark.parametrize("name", NAMES)
def test_each_module_has_a_level_of_its_own(name: str, module: ModuleType) -> None:
    settings = WSDeflate(zlib=module)
    assert (settings.zlib, settings.level, settings.mem_level) == (module, LEVELS.get(name, [6, 6])[1], 5)


def chosen(*arguments: str, isal: str = "", gil: bool = True) -> list[str]:
    """What a new interpreter takes in place of zlib, with a module of ours as isal, or with none."""
    program = f"""
import sys
sys._is_gil_enabled = lambda: {gil}
{isal}
from picows import WSDeflate
settings = WSDeflate({", ".join(arguments)})
print(settings.zlib.__name__, settings.level, settings.mem_level)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


STANDARD = ["zlib", "6", "5"]
NO_ISAL = "sys.modules['isal'] = None"


@pytest.mark.skipif(not importlib.util.find_spec("isal"), reason="isal is not installed")
def test_isal_is_used_by_itself_where_it_is_installed() -> None:
    assert chosen() == ["isal.isal_zlib", "1", "5"]
    # Who has weighed size, time and memory has done so for zlib.
    assert chosen("level=6") == STANDARD
    assert chosen("mem_level=5") == STANDARD
    assert chosen("zlib=__import__('zlib')") == STANDARD
    assert chosen(gil=False) == STANDARD
    assert chosen(isal="import isal.isal_zlib", gil=False) == ["isal.isal_zlib", "1", "5"]


def test_zlib_is_used_where_isal_is_not_installed() -> None:
    assert chosen(isal=NO_ISAL) == STANDARD


def test_memory_that_runs_out_is_no_fault_of_the_arguments() -> None:
    """A ValueError would say that the module takes no such level."""

    def compressobj(*_: object, **__: object) -> None:
        raise MemoryError

    short_of_memory = ModuleType("short_of_memory")
    vars(short_of_memory).update(vars(zlib), compressobj=compressobj)
    with pytest.raises(MemoryError):
        WSDeflate(zlib=short_of_memory)
