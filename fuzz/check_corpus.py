"""The inputs that coverage-guided fuzzing found, checked against the slow reference in Python.

    python fuzz/check_corpus.py [folder ...]

A folder has one folder of inputs for each target; without any it is that of the checkout, fuzz/corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fuzz.native.oracle import CHECKS


def check_corpus(folder: Path) -> int:
    """How many inputs were checked; the name of one that fails is printed."""
    checked = 0
    for target, check in CHECKS.items():
        for path in sorted((folder / target).glob("*")):
            try:
                check(path.read_bytes())
            except BaseException:
                print(f"the input is {path}", file=sys.stderr)
                raise
            checked += 1
    return checked


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:] or [Path(__file__).parent / "corpus"]):
        print(f"{folder}: the reference in Python agrees on {check_corpus(folder)} inputs")
