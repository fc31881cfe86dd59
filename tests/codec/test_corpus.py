"""The inputs that coverage-guided fuzzing found (`make fuzz-native`), judged by the slow reference in Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.native.oracle import CHECKS

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"


@pytest.mark.parametrize("target", CHECKS)
def test_the_reference_agrees(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        try:
            CHECKS[target](path.read_bytes())
        except BaseException as error:
            raise AssertionError(f"the input is {path}") from error
