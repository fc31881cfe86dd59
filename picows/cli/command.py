"""What the program ``picows`` does."""

from __future__ import annotations

from collections.abc import Sequence

from .arguments import parse
from .running import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, with the arguments of this process by default; returns the exit code."""
    options = parse(arguments)
    return run(options.command(options), options)
