"""Calls from a thread that is not the loop's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def call_in_thread(function: Callable[..., Any], *arguments: Any) -> tuple[int, BaseException | None]:
    """The thread's ident, and what the function raised in it."""
    outcome: list[Any] = [None]

    def main() -> None:
        outcome[0] = threading.get_ident()
        try:
            function(*arguments)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    return outcome[0], outcome[1] if len(outcome) > 1 else None
