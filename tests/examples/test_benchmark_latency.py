from __future__ import annotations

import json
from pathlib import Path

from examples.benchmark_latency import WAYS
from tests.examples.program import Start


def test_round_trips_are_measured(start: Start, tmp_path: Path) -> None:
    """As usual, and with all that can be done."""
    path = tmp_path / "latency.json"
    last = len(WAYS) - 1
    options = ("--loops", "asyncio", "--ways", 0, last, "--seconds", 0.02, "--runs", 1, "--json", path)
    head, *rows, wrote = start("benchmark_latency", *options).finish()
    assert head.split() == ["microseconds", "p50", "p99", "p99.9", "trips/s"]
    assert [row.split()[0] for row in rows] == ["asyncio"] * 2
    assert wrote == f"Wrote {path}"

    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["conditions"]["cpu"]
    assert [result["way"] for result in document["results"]] == [WAYS[0].name, WAYS[last].name]
    for result in document["results"]:
        median = result["median"]
        assert 0 < median["p50"] <= median["p99"] <= median["p99.9"]
        assert median["rate"] > 0
