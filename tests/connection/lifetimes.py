"""How a test sees that objects are gone, and by what."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def without_cycle_collector() -> Iterator[None]:
    """Only reference counting frees anything."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Watch:
    """Tells when objects are gone. It knows them by weak references only."""

    def __init__(self) -> None:
        self.references: dict[weakref.ref[Any], asyncio.Event] = {}

    def add(self, thing: object) -> None:
        event = asyncio.Event()
        self.references[weakref.ref(thing, lambda _: event.set())] = event

    async def all_gone(self) -> None:
        for reference, event in self.references.items():
            try:
                await asyncio.wait_for(event.wait(), 3)
            except asyncio.TimeoutError:
                pytest.fail(f"still there: {reference}")
