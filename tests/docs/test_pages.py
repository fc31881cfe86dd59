"""What the pages show and list: code that is true to the package, every public name, every example."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import picows
import picows.web

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

CODE_BLOCK = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
OTHERS = {"setuptools", "Cython"}  # what a page may import without being checked against it

# A page may leave out an annotation that would tell its reader nothing.
LENIENT = ["--allow-untyped-defs", "--allow-incomplete-defs", "--allow-any-generics", "--no-strict-equality"]


def code_blocks() -> Iterator[tuple[str, str]]:
    """A name that tells the place, and the code."""
    for page in sorted(DOCS.rglob("*.rst")):
        text = page.read_text(encoding="utf-8")
        for match in CODE_BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{page.stem}_line_{line}", textwrap.dedent(match[2])


def imports_others(code: str) -> bool:
    tree = ast.walk(ast.parse(code))
    modules = {node.module or "" for node in tree if isinstance(node, ast.ImportFrom)}
    return bool({module.partition(".")[0] for module in modules} & OTHERS)


@pytest.mark.timeout(300)  # a busy machine checks types slowly
def test_the_code_of_the_pages_fits_the_package(tmp_path: Path) -> None:
    blocks = dict(code_blocks())
    assert len(blocks) > 20
    for name, code in blocks.items():
        if not imports_others(code):
            (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *LENIENT, str(tmp_path), str(DOCS / "tutorial")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


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
