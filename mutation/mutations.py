"""Deliberate breaks of a line of Cython or C: operators, bounds, conditions and statements that are left out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

# What is no code of a line, and is covered by blanks of the same length: strings and comments.
_STRING = r"""[bfru]*"(?:[^"\\\n]|\\.)*"|[bfru]*'(?:[^'\\\n]|\\.)*'"""
_NO_CODE = re.compile(rf"{_STRING}|\#.*")
_NO_CODE_IN_C = re.compile(rf"{_STRING}|//.*|/\*.*?\*/")
_DOCSTRING = re.compile(r'[ru]*"{3}.*?"{3}|/\*.*?\*/', re.DOTALL)
# Declarations make no program of their own when they are changed; most do not even compile.
_NO_STATEMENT = re.compile(
    r"\s*(?:(?:from|import|cimport|include|cdef (?:extern|class|enum|struct|packed)|class|typedef)\b|#|@|c?p?def .*:$)"
)

# In what the code is looked for, and what takes its place.
OPERATORS = [
    (r"(?<![<>=!-])<(?![<=*\w])|(?<= )<(?= )", "<="),
    (r"<=", "<"),
    (r"(?<= )>(?= )", ">="),
    (r">=", ">"),
    (r"==", "!="),
    (r"!=", "=="),
    (r"(?<= )and(?= )", "or"),
    (r"(?<= )or(?= )", "and"),
    (r"&&", "||"),
    (r"\|\|", "&&"),
    (r"\bnot (?!in\b|None\b)", ""),
    (r"\bis not None\b", "is None"),
    (r"\bis None\b", "is not None"),
    (r"(?<= )\+(?= )", "-"),
    (r"(?<= )-(?= )", "+"),
    (r"\+=", "-="),
    (r"-=", "+="),
    (r"(?<= )<<(?= )", ">>"),
    (r"(?<= )>>(?= )", "<<"),
    (r"(?<=[\w)] )&(?= [\w(~])", "|"),
    (r"(?<=[\w)] )\|(?= [\w(~])", "&"),
    (r"\bTrue\b", "False"),
    (r"\bFalse\b", "True"),
    (r"\bbreak\b", "continue"),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
]
_NUMBER = re.compile(r"(?<![\w.\[])(\d+)(?![\w.\]])")
_CONDITION = re.compile(r"^(\s*)(if|elif|while) (.+):\s*$")
_CALL = re.compile(r"^(\s+)[\w.]+\(.*\)\s*$")
_FUNCTION = re.compile(r"\s*(?:async |static )?(?:inline )?(?:def|cdef|cpdef|int|void|uint32_t|size_t|ptrdiff_t)\b[^=]*?(\w+)\(")
_ASSIGNMENT = re.compile(r"^(\s+)[\w.\[\]]+ (?:[-+|&]?=) .+$")


@dataclasses.dataclass(frozen=True)
class Mutation:
    path: Path
    number: int  # of the line, from 1 on
    old: str
    new: str
    function: str  # that the line is in

    @property
    def key(self) -> str:
        """What stays the same while other lines of the file change."""
        return f"{self.path.as_posix()} {self.function}: {self.old.strip()} -> {self.new.strip()}"

    def __str__(self) -> str:
        return f"{self.path}:{self.number}\n    - {self.old.strip()}\n    + {self.new.strip()}"

    def apply(self, tree: Path) -> None:
        file = tree / self.path
        lines = file.read_text(encoding="utf-8").split("\n")
        assert lines[self.number - 1] == self.old, f"{self.path}:{self.number} has changed"
        lines[self.number - 1] = self.new
        file.write_text("\n".join(lines), encoding="utf-8")


def code_of(source: str, is_c: bool) -> str:
    """The same with blanks where there are strings and comments."""
    source = _DOCSTRING.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source)
    no_code = _NO_CODE_IN_C if is_c else _NO_CODE
    return "\n".join(no_code.sub(lambda match: " " * len(match[0]), line) for line in source.split("\n"))


def mutations(root: Path, path: Path) -> Iterator[Mutation]:
    """All that can be broken in a file, in the order of its lines."""
    source = (root / path).read_text(encoding="utf-8")
    function = ""
    for number, (old, visible) in enumerate(zip(source.split("\n"), code_of(source, path.suffix == ".h").split("\n")), 1):
        if (match := _FUNCTION.match(visible)) is not None:
            function = match[1]
        if visible.strip() and not _NO_STATEMENT.match(visible):
            for new in dict.fromkeys(_broken(old, visible.rstrip(), path.suffix == ".h")):
                if new != old:
                    yield Mutation(path, number, old, new, function)


def _broken(old: str, visible: str, is_c: bool) -> Iterator[str]:
    for pattern, replacement in OPERATORS:
        for match in re.finditer(pattern, visible):
            yield old[: match.start()] + replacement + old[match.end() :]
    for match in _NUMBER.finditer(visible):
        yield old[: match.start()] + str(int(match[1]) + 1) + old[match.end() :]
    if is_c:
        return
    if (match := _CONDITION.match(visible)) is not None:
        start, end = match.span(3)
        yield f"{old[:start]}False{old[end:]}"
        if match[2] != "while":
            yield f"{old[:start]}True{old[end:]}"
    elif (match := _CALL.match(visible) or _ASSIGNMENT.match(visible)) is not None and old.count("(") == old.count(")"):
        yield f"{match[1]}pass"
