"""Short runs of the programs behind `make faults`: connections over a network that breaks them, and without memory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FUZZ = ROOT / "fuzz"


def run(program: str, *options: str) -> str:
    """What it prints; it fails when it has found anything."""
    run = subprocess.run(
        [sys.executable, str(FUZZ / program), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals and loopback addresses of Unix")
@pytest.mark.parametrize("signals", ["none", "all"])
def test_connections_end_whatever_the_network_does(signals: str) -> None:
    printed = run("fuzz_faults.py", "--connections=160", "--seed=1", f"--signals={signals}")
    assert "\n160 connections from seed 1" in printed
    assert " 0 findings" in printed
    for fault in ("whole", "cut, opening", "reset, open", "half-close, closing"):
        assert f" {fault}" in printed


@pytest.mark.skipif(importlib.util.find_spec("_testcapi") is None, reason="this Python has no way to let memory run out")
def test_connections_end_when_memory_runs_out() -> None:
    printed = run("fuzz_memory.py", "--lives=16", "--seed=1")
    assert "\n16 lives from seed 1" in printed
    assert "MemoryError" in printed
