"""What the pages show and list: code that is true to the package, every public name, every example."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import picows
import picows.web
from tests.docs.pages import code_blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_what_the_pages_import_of_the_package_is_there() -> None:
    """And their code can be read; `make types` looks at the rest of it."""
    blocks = dict(code_blocks())
    assert len(blocks) > 20
    missing = [f"{place}: {name}" for place, code in blocks.items() for name in imported(code) if not is_there(name)]
    assert missing == []


def imported(code: str) -> Iterator[str]:
    """What of the package it imports, by dotted names."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == "picows":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "picows")


def is_there(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module and hasattr(importlib.import_module(module), attribute):
        return True
    return importlib.util.find_spec(name) is not None


def test_the_reference_has_every_public_name() -> None:
    reference = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.rst"))
    named = set(re.findall(r"^\.\. auto\w+:: (\w+)$|^``picows\.(\w+)``$", reference, re.MULTILINE))
    assert {automatic or listed for automatic, listed in named} == set(picows.__all__)


def test_the_reference_has_every_name_of_the_web() -> None:
    text = (DOCS / "reference" / "web.rst").read_text(encoding="utf-8")
    named = set(re.findall(r"^\.\. auto\w+:: picows\.web\.(\w+)$|``(?:picows\.web\.)?([A-Za-z]+)``", text, re.MULTILINE))
    assert {automatic or listed for automatic, listed in named} >= set(picows.web.__all__)
    assert set(re.findall(r"``(WS_1\w+)``", text)) == {name for name in vars(picows.web.status) if name.startswith("WS_")}


def test_the_reference_has_every_method_and_attribute() -> None:
    for page, cls in (("frame", picows.WSFrame), ("transport", picows.WSTransport), ("listener", picows.WSListener)):
        text = (DOCS / "reference" / f"{page}.rst").read_text(encoding="utf-8")
        described = set(re.findall(r"^   \.\. (?:automethod|autoattribute|attribute):: (\w+)$", text, re.MULTILINE))
        assert described == {name for name in vars(cls) if not name.startswith("_")}


def test_everything_public_says_what_it_is() -> None:
    silent = [name for name in picows.__all__ if isinstance(getattr(picows, name), type) and not getattr(picows, name).__doc__]
    for cls in (picows.WSFrame, picows.WSTransport, picows.WSListener):
        silent += [f"{cls.__name__}.{name}" for name in vars(cls) if not name.startswith("_") and not getattr(cls, name).__doc__]
    assert silent == []


def test_every_example_is_shown() -> None:
    shown = re.findall(r"literalinclude:: \.\./examples/(\S+)", (DOCS / "examples.rst").read_text(encoding="utf-8"))
    sources = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".pyx", ".html")}
    shown = [name for name in shown if not name.startswith("benchmark_c/")]
    assert set(shown) == sources - {"__init__.py"}
    assert len(shown) == len(set(shown))


def test_what_the_security_page_names_as_shown_is_a_test() -> None:
    page = (DOCS / "security.rst").read_text(encoding="utf-8")
    named = re.findall(r"``([\w/]+\.py)::(\w+)``", page)
    assert len(named) > 40
    for file, test in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"def {test}\(", source), f"{file}::{test}"
