from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]

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


@pytest.mark.skipif(sys.version_info < (3, 11), reason="stubtest knows the standard library of newer versions only")
def test_the_stubs_say_what_the_modules_hold() -> None:
    allowed = str(HERE / "stubtest-allowlist.txt")
    # It takes in the compiled modules. Not every version of Python and mypy needs all that is allowed.
    status, printed = run("mypy.stubtest", "picows", "--allowlist", allowed, "--ignore-unused-allowlist")
    assert status == 0, printed
