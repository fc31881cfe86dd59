from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, code_blocks

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]

OTHERS = {"setuptools", "Cython"}  # what a page may import without being checked against it
# A page may leave out an annotation that would tell its reader nothing.
LENIENT = ["--allow-untyped-defs", "--allow-incomplete-defs", "--allow-any-generics", "--no-strict-equality"]

pytestmark = pytest.mark.timeout(300)  # a busy machine checks types slowly


def run(module: str, *args: str) -> tuple[int, str]:
    """The exit status and the output of `python -m module`."""
    command = [sys.executable, "-m", module, *args]
    done = subprocess.run(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def test_a_typed_program_passes() -> None:
    status, printed = run("mypy", "--strict", str(HERE / "user.py"))
    assert status == 0, printed


def test_mistakes_are_found() -> None:
    file = HERE / "mistakes.py"
    lines = file.read_text(encoding="utf-8").splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# mistake")}
    status, printed = run("mypy", "--strict", str(file))
    assert status == 1
    assert {int(line.split(":")[1]) for line in printed.splitlines() if ": error:" in line} == marked


def imports_others(code: str) -> bool:
    tree = ast.walk(ast.parse(code))
    modules = {node.module or "" for node in tree if isinstance(node, ast.ImportFrom)}
    return bool({module.partition(".")[0] for module in modules} & OTHERS)


def test_the_code_of_the_pages_fits_the_package(tmp_path: Path) -> None:
    for name, code in code_blocks():
        if not imports_others(code):
            (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    status, printed = run("mypy", *LENIENT, str(tmp_path), str(DOCS / "tutorial"))
    assert status == 0, printed


@pytest.mark.skipif(sys.version_info < (3, 11), reason="stubtest knows the standard library of newer versions only")
def test_the_stubs_say_what_the_modules_hold() -> None:
    allowed = str(HERE / "stubtest-allowlist.txt")
    # It takes in the compiled modules. Not every version of Python and mypy needs all that is allowed.
    status, printed = run("mypy.stubtest", "picows", "--allowlist", allowed, "--ignore-unused-allowlist")
    assert status == 0, printed
