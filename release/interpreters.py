"""Which CPython interpreters this machine has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOUND = "found"  # in a list of interpreters: all that the machine has

_NAME = re.compile(r"python3\.[0-9]+t?")
_OLDEST = [3, 9]

# A virtual environment and a shim of pyenv are the interpreter that they lead to.
_QUESTION = """
import json, sys
print(json.dumps([sys.implementation.name, sys.version_info[:3], getattr(sys, "abiflags", ""),
                  getattr(sys, "_base_executable", sys.executable)]))
"""


class Interpreter(NamedTuple):
    release: tuple[int, ...]
    flags: str  # "t": without the GIL
    path: str

    @property
    def version(self) -> str:
        """As the Makefile has it in the names of environments: 3.13t."""
        return "{}.{}{}".format(*self.release[:2], self.flags)

    def __str__(self) -> str:
        return ".".join(map(str, self.release)) + self.flags


def interpreters(words: str) -> list[Interpreter]:
    """Those that are named, by a path or as the shell finds them, one of each version, the oldest first.

    `found` stands for those that PATH, pyenv and uv have; a name that is none of an interpreter is a ValueError.
    """
    by_version: dict[str, Interpreter] = {}
    # Of two with one version the newer release; of two with one release the one that was named first.
    for interpreter in sorted(_named(words), key=lambda interpreter: interpreter.release):
        known = by_version.get(interpreter.version)
        if known is None or known.release < interpreter.release:
            by_version[interpreter.version] = interpreter
    return sorted(by_version.values())


def _named(words: str) -> Iterator[Interpreter]:
    for word in words.split():
        if word == FOUND:
            yield from filter(None, map(_ask, _candidates()))
            continue
        path = shutil.which(word)
        interpreter = _ask(path) if path else None
        if interpreter is None:
            raise ValueError(f"{word} is no CPython from {'.'.join(map(str, _OLDEST))} on that runs")
        yield interpreter


def _candidates() -> Iterator[str]:
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for folder in [*folders, *pyenv.glob("versions/*/bin"), *uv.glob("*/bin")]:
        for path in sorted(folder.glob("python3.*")):
            if _NAME.fullmatch(path.name):
                yield str(path)


def _ask(path: str) -> Interpreter | None:
    """What a program says of itself; None if it is no interpreter for us, or a shim of a version that is not chosen."""
    try:
        done = subprocess.run([path, "-I", "-c", _QUESTION], capture_output=True, check=True, timeout=60)
        implementation, release, flags, base = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if implementation != "cpython" or release[:2] < _OLDEST:
        return None
    return Interpreter(tuple(release), flags, base)
