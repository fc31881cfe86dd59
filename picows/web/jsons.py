"""JSON by the quickest module that is installed, unless a handler brings its own functions."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Union

Loads = Callable[[Union[str, bytes]], Any]
Dumps = Callable[[Any], Union[str, bytes]]


def functions() -> tuple[Loads, Dumps]:
    """`loads` and `dumps` of msgspec, orjson or the standard library."""
    for name, loads, dumps in (("msgspec.json", "decode", "encode"), ("orjson", "loads", "dumps")):
        try:
            module = import_module(name)
        except ImportError:
            continue
        return getattr(module, loads), getattr(module, dumps)
    module = import_module("json")
    # As the other two write it.
    return module.loads, module.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


loads: Loads
dumps: Dumps
loads, dumps = functions()
