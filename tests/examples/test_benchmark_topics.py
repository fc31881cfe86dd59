"""The benchmark of topics measures each case, and what it says of the messages that arrived is true."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from examples.benchmark_topics import KEYS, TOPICS, deliveries, got_newest
from tests.examples.program import Start

needs_linux = pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="it needs Linux and a C compiler")


@needs_linux
def test_every_case_is_measured(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "topics.json"
    few = ("--subscribers", 200, "--stalled", 2, "--rounds", 2, "--rate", 2000, "--seconds", 0.4, "--spread", 0.2)
    printed = start("benchmark_topics", *few, "--contenders", "picows", "--json", path).finish()
    assert printed[-1] == f"Wrote {path}"

    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["conditions"]["cpu"]
    results = {result["case"].partition(":")[0]: result for result in document["results"]}
    assert list(results) == ["publish", "stalled", "shutdown"]
    assert not [result["failed"] for result in results.values() if result["failed"]]
    figures = {name: {each["what"]: each["value"] for each in result["figures"]} for name, result in results.items()}
    assert all(value > 0 for value in figures["publish"].values())
    assert figures["stalled"]["replaced"] > 0
    # A busy machine changes times, and nothing else.
    timed = ("times", "a second", "growth")
    checks = [each for result in results.values() for each in result["checks"]]
    counts = [each for each in checks if not any(word in each["what"] for word in timed)]
    assert len(counts) == 9
    assert [each for each in counts if not each["passed"]] == []


def test_an_unknown_case_is_refused(start: Start) -> None:
    program = start("benchmark_topics", "--only", "telepathy")
    assert "choose from publish, stalled, shutdown" in program.wait_for("error:")
    program.finish(2)


IN_KERNEL = list(range(130))
# Key 30 began to wait first, and 29 last.
NEWEST = [*range(930, 1000), *range(900, 930)]


@pytest.mark.parametrize(
    ("numbers", "right"),
    [
        (IN_KERNEL + NEWEST, True),
        (IN_KERNEL + NEWEST[:-1], False),
        (IN_KERNEL + NEWEST + NEWEST[-1:], False),
        ([*IN_KERNEL, 830, *NEWEST[1:]], False),
        ([*IN_KERNEL, *NEWEST, 830], False),
        (list(range(1000)), True),
    ],
    ids=["exact", "one missing", "one twice", "an old one instead", "an old one behind", "never stalled"],
)
def test_only_the_newest_of_each_key_is_right(numbers: list[int], right: bool) -> None:
    assert KEYS == 100
    assert got_newest(numbers, 1000) is right


def test_each_subscriber_is_due_the_messages_of_his_topic() -> None:
    assert TOPICS == 200
    assert deliveries(400, 1000) == 400 * 5
    # Topic 0 has messages 0 and 200; with 201 subscribers it has two of them as well.
    assert deliveries(3, 201) == 4
    assert deliveries(201, 201) == 2 * 2 + 199
