"""A broker, or a server process, gets a SIGKILL under load. The processes are those of examples/benchmark_brokers.py."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from examples.benchmark_broker_outages import Outage, broken_promises
from tests.brokers.servers import PLAIN, STORES, server_of
from tests.examples.program import Program

CLIENTS, MESSAGES = 4, 60


@pytest.mark.parametrize("killed", ["broker", "process"])
@pytest.mark.parametrize("kind", [*PLAIN, *STORES])
def test_what_arrives_when_something_is_killed(kind: str, killed: str, tmp_path: Path) -> None:
    """With a store all that was confirmed; nothing twice, and nothing out of order."""
    server_of(kind, tmp_path)  # skips where there is none
    counts = asyncio.run(Outage(kind, "asyncio").run(killed, CLIENTS, MESSAGES))
    assert counts.published >= 3 * MESSAGES
    assert counts.duplicated == counts.out_of_order == 0, counts
    assert counts.received + counts.missed == CLIENTS * counts.published
    if kind in STORES:
        assert counts.missed == 0, counts
    if killed == "process":
        assert counts.came_back > 0
        assert counts.raised == 0


def test_the_benchmark_measures_every_broker(tmp_path: Path) -> None:
    for kind in STORES:
        server_of(kind, tmp_path)
    path = tmp_path / "brokers.json"
    quickly = ("--runs", 1, "--seconds", 0.02, "--clients", 2, "--messages", 20, "--json", path)
    program = Program("benchmark_brokers", *quickly)
    try:
        printed = program.finish()
    finally:
        program.kill()
    assert not [line for line in printed if "failed" in line]

    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["versions"]["nats-py"]
    assert document["versions"]["redis"]
    kinds = ("nats", "jetstream", "redis", "redis-streams")
    cases = {(each["case"]["kind"], each["case"]["depth"], each["contender"]): each["median"] for each in document["results"]}
    assert set(cases) == {(kind, depth, name) for kind in kinds for depth in (1, 100) for name in ("picows", "bare client")}
    assert all(median["rate"] > 0 and median["cpu_us"] > 0 for median in cases.values())
    assert {(each["kind"], each["killed"]) for each in document["outages"]} == {
        (kind, killed) for kind in kinds for killed in ("broker", "process")
    }
    assert not broken_promises(document["outages"])


def test_what_counts_as_broken() -> None:
    kept = {"kind": "jetstream", "killed": "broker", "missed": 0, "duplicated": 0, "out_of_order": 0}
    at_most_once = {**kept, "kind": "nats", "missed": 5}
    broken = [{**kept, name: 1} for name in ("missed", "duplicated", "out_of_order")]
    broken += [{**at_most_once, "duplicated": 1}, {"kind": "redis", "killed": "process", "failed": "why"}]
    assert broken_promises([kept, at_most_once]) == []
    assert len(broken_promises([kept, *broken, at_most_once])) == len(broken)
