"""web3 with `picows.websockets` in the place of the package `websockets`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_web3_works_on_it() -> None:
    pytest.importorskip("web3", exc_type=ImportError)
    done = subprocess.run(
        [sys.executable, "tests/frameworks/web3_program.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["16 1", "0xcafe True"]
