"""A short run of `make faults`: connections over a network that breaks them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals and loopback addresses of Unix")
@pytest.mark.parametrize("signals", ["none", "all"])
def test_connections_end_whatever_the_network_does(signals: str) -> None:
    options = ["--connections=120", "--seed=1", f"--signals={signals}"]
    run = subprocess.run(
        [sys.executable, str(ROOT / "fuzz" / "fuzz_faults.py"), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "\n120 connections from seed 1" in run.stdout
    assert " 0 findings" in run.stdout
    for fault in ("whole", "cut, opening", "reset, open", "half-close, closing"):
        assert f" {fault}" in run.stdout
