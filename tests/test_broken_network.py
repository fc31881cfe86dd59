"""A short run of both parts of `make faults`: over a network that breaks connections, and without memory."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOOP = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


def output_of(program: str, *options: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, str(ROOT / "fuzz" / program), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals and loopback addresses of Unix")
def test_connections_end_whatever_the_network_does() -> None:
    # Of this seed no connection has to wait for one of the longer time limits.
    networks = f"{LOOP}-tcp,{LOOP}-tls"
    status, output = output_of("fuzz_faults.py", "--connections=20", "--seed=8", "--signals=all", f"--networks={networks}")
    assert status == 0, output
    assert "\n20 connections from seed 8" in output
    for outcome in ("whole", "cut", "reset", "not connected"):
        assert re.search(rf"^ +\d+ .*{outcome}", output, re.MULTILINE), output


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="crashes are told by glibc, from C")
def test_connections_outlive_missing_memory() -> None:
    pytest.importorskip("_testcapi")
    # asyncio may lose the waking of a task: that such a life does not end is no finding here.
    _, output = output_of("fuzz_memory.py", "--lives=8", "--seed=4", "--networks=asyncio-tcp", "--limit=3")
    assert "\n8 lives from seed 4" in output
    assert "MemoryError\n" in output
    assert all(" did not end within " in found for found in output.split("\nFOUND ")[1:]), output
