"""What a person sees: colours only on a terminal, and no byte of a peer's that a terminal would obey."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

# C0 without tab and line feed, DEL, C1, and the marks that turn the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_COLOURS = {"received": "36", "note": "2", "error": "31"}


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def printable(text: str) -> str:
    """`text` with its control characters written as escapes."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class Screen:
    """Lines to stdout and stderr.

    What was received goes to stdout: on a terminal with a mark before it, escaped and in colour; in a
    pipe as it came. Everything else goes to stderr.
    """

    def __init__(self) -> None:
        self.is_terminal: bool = is_terminal(sys.stdout)
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._colours = {} if plain else _COLOURS

    def received(self, text: str) -> None:
        if self.is_terminal:
            text = self._coloured("received", f"< {printable(text)}", sys.stdout)
        print(text, flush=True)

    def note(self, text: str) -> None:
        print(self._coloured("note", printable(text), sys.stderr), file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        print(self._coloured("error", printable(text), sys.stderr), file=sys.stderr, flush=True)

    def _coloured(self, kind: str, text: str, stream: TextIO) -> str:
        colour = self._colours.get(kind)
        return text if colour is None or not is_terminal(stream) else f"\x1b[{colour}m{text}\x1b[0m"
