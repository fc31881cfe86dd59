"""What WSDeflate takes, and what it says of the rest."""

from __future__ import annotations

import dataclasses
import types
import zlib

import pytest

from picows.deflate import WSDeflate


def test_defaults() -> None:
    settings = WSDeflate()
    assert (settings.server_max_window_bits, settings.client_max_window_bits) == (None, None)
    assert (settings.server_no_context_takeover, settings.client_no_context_takeover) == (False, False)
    assert settings.min_size == 64
    settings = WSDeflate(zlib=zlib)  # which one is taken by itself: test_modules.py
    assert (settings.level, settings.mem_level) == (6, 5)


def test_settings_are_values() -> None:
    assert WSDeflate(level=1) == WSDeflate(level=1) != WSDeflate()
    assert hash(WSDeflate(level=1)) == hash(WSDeflate(level=1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        WSDeflate().level = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        WSDeflate(12)  # type: ignore[misc]


@pytest.mark.parametrize("bits", range(8, 16))
def test_every_window_can_be_set(bits: int) -> None:
    assert WSDeflate(server_max_window_bits=bits).server_max_window_bits == bits
    assert WSDeflate(client_max_window_bits=bits).client_max_window_bits == bits


@pytest.mark.parametrize(("name", "value"), [("level", -1), ("level", 9), ("mem_level", 1), ("mem_level", 9), ("min_size", 0)])
def test_a_number_that_is_just_in_range(name: str, value: int) -> None:
    assert getattr(WSDeflate(zlib=zlib, **{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("server_max_window_bits", "client_max_window_bits") for value in (7, 16, 0, -12)),
        *(("level", value) for value in (-2, 10)),
        *(("mem_level", value) for value in (0, 10)),
        ("min_size", -1),
    ],
)
def test_a_number_out_of_range(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be an int .*, not {value}$"):
        WSDeflate(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, 9.0, "9", b"9"])
@pytest.mark.parametrize("name", ["server_max_window_bits", "client_max_window_bits", "level", "mem_level", "min_size"])
def test_no_number(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be an int .*, not {value!r}$"):
        WSDeflate(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [0, "zlib", dataclasses])
def test_no_module_like_zlib(module: object) -> None:
    with pytest.raises(TypeError, match=r"^zlib must be a module like zlib, but .* has no compressobj$"):
        WSDeflate(zlib=module)  # type: ignore[arg-type]


def test_a_level_that_the_module_does_not_know() -> None:
    def compressobj(level: int, *_: int) -> None:
        if level > 3:
            raise ValueError("levels are 0 to 3")

    module = types.ModuleType("simple")
    vars(module).update(compressobj=compressobj, decompressobj=zlib.decompressobj, error=zlib.error)
    assert WSDeflate(zlib=module, level=3).level == 3
    with pytest.raises(ValueError, match=r"^simple takes no level=6 with mem_level=5: levels are 0 to 3$"):
        WSDeflate(zlib=module)
