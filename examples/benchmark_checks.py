"""What a benchmark has found out beside what is asked of it: on the screen and as JSON.

For the benchmarks that answer a question by yes or no: examples/benchmark_topics.py and examples/benchmark_brokers.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .benchmark_report import digits, short, significant

WHAT_WIDTH, FOUND_WIDTH = 64, 16


@dataclass(frozen=True)
class Figure:
    """What was measured, for the reader to judge."""

    what: str
    value: float
    unit: str = ""

    def __str__(self) -> str:
        return f"      {self.what.ljust(WHAT_WIDTH)}{shown(self.value, self.unit).rjust(FOUND_WIDTH)}"


@dataclass(frozen=True)
class Check:
    """What was measured, and what is asked of it."""

    what: str
    value: float
    unit: str
    asked: str
    passed: bool

    def __str__(self) -> str:
        word = "ok  " if self.passed else "FAIL"
        return f"{word}  {self.what.ljust(WHAT_WIDTH)}{shown(self.value, self.unit).rjust(FOUND_WIDTH)}   asked: {self.asked}"


def at_most(what: str, value: float, limit: float, unit: str = "") -> Check:
    return Check(what, value, unit, f"{shown(limit, unit)} at most", value <= limit)


def at_least(what: str, value: float, limit: float, unit: str = "") -> Check:
    return Check(what, value, unit, f"{shown(limit, unit)} at least", value >= limit)


def exactly(what: str, value: float, wanted: float, unit: str = "") -> Check:
    return Check(what, value, unit, shown(wanted, unit), value == wanted)


@dataclass
class Outcome:
    """Of one case."""

    case: str
    figures: list[Figure] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what has to be known to read the figures
    failed: str = ""  # why there are none

    @property
    def passed(self) -> bool:
        return not self.failed and all(check.passed for check in self.checks)

    def lines(self) -> list[str]:
        """The figures, then what was asked of them."""
        title = self.case if not self.failed else f"{self.case}: failed: {self.failed}"
        return ["", title, *map(str, self.figures), *map(str, self.checks), *(f"      ({note})" for note in self.notes)]

    def as_json(self) -> dict[str, Any]:
        def rounded(each: Figure | Check) -> dict[str, Any]:
            value = each.value if isinstance(each.value, int) else significant(each.value)
            return {**asdict(each), "value": value}

        return {
            "case": self.case,
            "passed": self.passed,
            "figures": [rounded(each) for each in self.figures],
            "checks": [rounded(each) for each in self.checks],
            "notes": self.notes,
            "failed": self.failed,
        }


def shown(value: float, unit: str) -> str:
    """Counts as they are, rates short, the rest with three digits."""
    if unit == "%":
        return f"{value:.1%}"
    rounded = short if unit.endswith("/s") else digits
    number = f"{value:,}" if isinstance(value, int) else rounded(value)
    return f"{number} {unit}".rstrip()


def write_outcomes(path: Path, about: dict[str, Any], outcomes: Iterable[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {**about, "results": [outcome.as_json() for outcome in outcomes]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
