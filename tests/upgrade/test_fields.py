"""The field lines of an HTTP head: what they hold, and where they end."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picows.upgrade._fields import parse_fields

# RFC 9112 section 5 and RFC 9110 section 5.6.2, as the expression that says the same.
LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*")


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"Host: a\r\n", ("Host", "a")),
        (b"Host:a\r\n", ("Host", "a")),
        (b"Host:\t a b \t\r\n", ("Host", "a b")),
        (b"Host:\r\n", ("Host", "")),
        (b"Host: \t \r\n", ("Host", "")),
        (b"x: gr\xc3\xbc\xc3\x9fe\r\n", ("x", "grüße")),
        (b"x: \xff\r\n", ("x", "\udcff")),
        (b"x: a: b\r\n", ("x", "a: b")),
    ],
)
def test_a_field(line: bytes, field: tuple[str, str]) -> None:
    assert parse_fields(b"!" + line + b"\r\n", 1, {}) == ([field], 1 + len(line))


@pytest.mark.parametrize(
    "line",
    [b"", b":", b": a\r\n", b"a", b"a:", b"a: b", b"a: b\r", b"a: b\n", b"a : b\r\n", b" a: b\r\n", b"a: \0\r\n", b"a: b\rc\r\n",
     b"a: \x7f\r\n", b"\xc3: a\r\n"],
)  # fmt: skip
def test_no_field(line: bytes) -> None:
    assert parse_fields(b"x: y\r\n" + line, 0, {}) == ([("x", "y")], 6)


def test_names_that_exist_are_used() -> None:
    host = "".join(["Ho", "st"])
    ((name, _), (other, _)), _ = parse_fields(b"Host: a\r\nhost: b\r\n", 0, {host: host})
    assert name is host
    assert other == "host"


@pytest.mark.parametrize("start", [-1, 2])
def test_the_start_lies_inside(start: int) -> None:
    with pytest.raises(ValueError, match=f"start is {start}"):
        parse_fields(b"a", start, {})


PIECES = [b"a", b"Host", b":", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\xff", b"\0", b"(", b"~"]


@given(st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_they_end_where_the_grammar_ends(head: bytes) -> None:
    match = LINES.match(head)
    assert match
    fields, end = parse_fields(head, 0, {})
    assert end == match.end()
    assert len(fields) == head[:end].count(b"\r\n")
