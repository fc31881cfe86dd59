"""Many breaks in one build: what is broken stands beside what is whole, and a number chooses as the program runs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .mutations import Mutation, code_of

NUMBER = "picows_break"  # the break that is alive: an int of C
# For whole statements of Cython, the condition, and the value that a declaration begins with.
_CONDITION = re.compile(r"^(\s+)(if|elif|while) (.+):$")
_DECLARATION = re.compile(r"^(\s+cdef [^=(]+?) = (.+)$")
_STATEMENT = re.compile(r"^(\s+)(?!cdef\b|if\b|elif\b|else\b|while\b|for\b|try\b|except\b|finally\b|with\b|async\b).*[^:\\]$")
_FUNCTION = re.compile(r"\s*(?:async )?(?:def|cdef|cpdef)\b.*\(")
# The same of C.
_CONDITION_IN_C = re.compile(r"^(\s+(?:\} else )?)(if|while) \((.+)\)( \{)?$")
_VALUE_IN_C = re.compile(r"^(\s+(?:[\w* \[\]>.&|^+-]*[^<>=!]=|return)) (.+);$")

_C = (_CONDITION_IN_C, _VALUE_IN_C)

_HEADER = f"""\
#pragma once
#include <stdlib.h>
static int {NUMBER};  /* 0: none. Programs that tests start have it from their environment. */
static __attribute__((constructor)) void {NUMBER}_read(void)
{{
    const char* told = getenv("PICOWS_BREAK");
    {NUMBER} = told ? atoi(told) : 0;
}}
"""
_IN_CYTHON = f'\n\ncdef extern from "_native/broken.h" nogil:\n    int {NUMBER}\n'
_PXD = [Path("picows/_codec.pxd"), Path("picows/_messages.pxd")]  # which hold functions
_IN_MODULES = f"\ndef choose_break(int number):\n    global {NUMBER}\n    {NUMBER} = number\n"


def build_in(tree: Path, breaks: Iterable[tuple[int, Mutation]]) -> set[int]:
    """Write the breaks beside what they break, as far as that can be; gives the numbers of these."""
    at: defaultdict[Path, defaultdict[int, dict[int, Mutation]]] = defaultdict(lambda: defaultdict(dict))
    for number, mutation in breaks:
        at[mutation.path][mutation.number][number] = mutation
    built = set()
    for path, by_line in at.items():
        lines = (tree / path).read_text(encoding="utf-8").split("\n")
        in_c = path.suffix == ".h"
        code = code_of("\n".join(lines), in_c).split("\n")
        for line, mutations in by_line.items():
            news = {number: mutation.new for number, mutation in mutations.items()}
            if in_c or _is_statement(code, line - 1):
                both = (_both_in_c if in_c else _both)(lines[line - 1], news)
                if both is not None:
                    lines[line - 1] = both
                    built |= news.keys()
        (tree / path).write_text("\n".join(lines), encoding="utf-8")
    _declare(tree)
    return built


def _is_statement(code: list[str], index: int) -> bool:
    """Whether the line is all of a statement, and inside of a function."""
    brackets = 0
    for i, line in enumerate(code[: index + 1]):
        if i == index and (brackets or code[i - 1].rstrip().endswith("\\")):
            return False
        brackets += sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
    if brackets:
        return False
    indent = len(code[index]) - len(code[index].lstrip())
    for line in reversed(code[:index]):
        if line.strip() and not line.lstrip().startswith(")") and len(line) - len(line.lstrip()) < indent:
            if _FUNCTION.match(line):
                return True
            indent = len(line) - len(line.lstrip())
    return False


def _parts(pattern: re.Pattern[str], line: str, group: int) -> tuple[str, str] | None:
    """The line but for one group of the pattern, and that group."""
    match = pattern.match(code_of(line, pattern in _C).rstrip())
    if match is None:
        return None
    start, end = match.span(group)
    return line[:start] + "\0" + line[end : match.end()], line[start:end]


def _same_frame(pattern: re.Pattern[str], old: str, news: dict[int, str], group: int) -> tuple[str, str, dict[int, str]] | None:
    whole = _parts(pattern, old, group)
    broken = {number: _parts(pattern, new, group) for number, new in news.items()}
    if whole is None or any(part is None or part[0] != whole[0] for part in broken.values()):
        return None
    return whole[0], whole[1], {number: part[1] for number, part in broken.items() if part is not None}


def _both(old: str, news: dict[int, str]) -> str | None:
    if (parts := _same_frame(_CONDITION, old, news, 3)) is not None:
        frame, whole, broken = parts
        either = [f"({NUMBER} == {number} and ({condition}))" for number, condition in broken.items()]
        none_of_them = " and ".join(f"{NUMBER} != {number}" for number in broken)
        return frame.replace("\0", " or ".join([*either, f"({none_of_them} and ({whole}))"]))
    if (parts := _same_frame(_DECLARATION, old, news, 2)) is not None:
        frame, whole, broken = parts
        for number, value in broken.items():
            whole = f"(({value}) if {NUMBER} == {number} else ({whole}))"
        return frame.replace("\0", whole)
    if _STATEMENT.match(code_of(old, False).rstrip()):
        indent = re.match(r"\s*", old)[0]  # type: ignore[index]
        word = "if"
        statements = []
        for number, new in news.items():
            statements.append(f"{indent}{word} {NUMBER} == {number}:\n{indent}    {new.strip()}")
            word = "elif"
        return "\n".join([*statements, f"{indent}else:\n{indent}    {old.strip()}"])
    return None


def _both_in_c(old: str, news: dict[int, str]) -> str | None:
    for pattern, group in ((_CONDITION_IN_C, 3), (_VALUE_IN_C, 2)):
        if (parts := _same_frame(pattern, old, news, group)) is not None:
            frame, whole, broken = parts
            for number, value in broken.items():
                whole = f"({NUMBER} == {number} ? ({value}) : ({whole}))"
            return frame.replace("\0", whole)
    return None


def _declare(tree: Path) -> None:
    """In every module and part on its own, since each sees only what it includes."""
    (tree / "picows/_native/broken.h").write_text(_HEADER, encoding="utf-8")
    for header in (tree / "picows/_native").glob("*.h"):
        if header.name != "broken.h":
            header.write_text('#include "broken.h"\n' + header.read_text(encoding="utf-8"), encoding="utf-8")
    for path in [*tree.glob("picows/**/*.pyx"), *tree.glob("tests/*/bindings.pyx"), *(tree / pxd for pxd in _PXD)]:
        with (tree / path).open("a", encoding="utf-8") as module:
            declared = path.suffix == ".pyx" and path.relative_to(tree).with_suffix(".pxd") in _PXD
            module.write(("" if declared else _IN_CYTHON) + (_IN_MODULES if path.suffix == ".pyx" else ""))
