"""Tracebacks that outlive their frames: they name the same places in the source, and hold no variables."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from types import FrameType, FunctionType, TracebackType
from typing import Any

_GROUP: Any = getattr(builtins, "BaseExceptionGroup", ())  # since Python 3.11


def release_frames(error: BaseException) -> None:
    """Replace the traceback of an error, and of all that led to it, by one without the frames.

    A frame refers to the variables of its function, so an error that one of these keeps is part of
    a cycle. The frames themselves are left alone: a suspended coroutine still needs its own.
    """
    done: set[int] = set()  # users may have tied the causes into a ring
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is None or id(one) in done:
            continue
        done.add(id(one))
        one.__traceback__ = _places(one.__traceback__)
        errors += [one.__cause__, one.__context__]
        if isinstance(one, _GROUP):
            errors += one.exceptions


def _places(traceback: TracebackType | None) -> TracebackType | None:
    found = []
    while traceback is not None:
        found.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    places: TracebackType | None = None
    for frame, line in reversed(found):
        # -1: no instruction, hence no columns within the line.
        places = TracebackType(places, _empty_frame(frame), -1, line)
    return places


def _empty_frame(frame: FrameType) -> FrameType:
    """A frame of a function with the same name and file, without variables and without a caller."""
    code = _never_run.__code__.replace(
        co_filename=frame.f_code.co_filename, co_name=frame.f_code.co_name
    )
    # How the source is found that does not lie in a file of its own.
    names = {name: frame.f_globals.get(name) for name in ("__name__", "__loader__")}
    generator = FunctionType(code, names)()
    empty: FrameType = generator.gi_frame
    return empty


def _never_run() -> Iterator[None]:
    yield
