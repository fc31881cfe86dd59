"""The benchmark measures every kind of case, and one contender's failure is not the end of the others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from examples import benchmark
from examples.benchmark_report import (
    Case,
    Progress,
    Result,
    Sample,
    caption,
    draw_charts,
    failures,
    label,
    read_json,
    table_row,
    write_json,
)
from tests.examples.program import Start

ONE_OF_EACH = (
    "echo 256 d1 c8 tcp",
    "round trip 256 d1 tcp",
    "receive 256 tcp",
    "send 256 tcp",
    "handshake tcp",
    "idle c200 tcp",
    "send to all 256 c1000 tcp",
    "broadcast 256 c1000 tcp",
    "receive 256 tls",
)
QUICKLY = ("--quick", "--no-charts", "--contenders", "picows", "--loops", "asyncio", "--runs", 1, "--seconds", 0.02)


def test_every_kind_of_case_is_measured(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    # A loop's TLS is in the quick selection if it is the only loop.
    printed = start("benchmark", *QUICKLY, "--only", ",".join(ONE_OF_EACH), "--json", path).finish()

    names = {f"{name} asyncio" for name in ONE_OF_EACH}
    rows = {name: line for line in printed for name in names if line.startswith(name)}
    assert set(rows) == names
    assert not [line for line in printed if "failed" in line]

    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["conditions"]["cpu"]
    assert document["versions"]["picows"]["picows"]
    results = {result["name"]: result["median"] for result in document["results"]}
    assert set(results) == names
    memory = results.pop("idle c200 tcp asyncio")
    assert memory.keys() == {"kib"}
    for median in results.values():
        assert median.keys() == {"rate", "cpu_us", "busy"}
        # The process cannot have worked for much longer than the time that went by.
        assert 0 < median["rate"] * median["cpu_us"] / 1e6 < 1.5


def test_the_coroutine_interfaces_are_measured(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    # Of two cases that differ in a number only one; each starts two programs.
    one_of_each = "echo 256 d16,idle,pings,round trip,pipeline,receive,asgi 256 d16,starlette,json 1024"
    quickly = ("--quick", "--contenders", "picows,uvicorn-picows", "--runs", 1, "--seconds", 0.02, "--only", one_of_each)
    printed = start("benchmark_coroutines", *quickly, "--json", path).finish()

    assert not [line for line in printed if "failed" in line]
    kinds = {result["case"]["kind"]: result["median"] for result in json.loads(path.read_text(encoding="utf-8"))["results"]}
    idle = {kinds.pop("idle")["kib"], kinds.pop("idle asgi")["kib"]}
    assert min(idle) > 0
    assert set(kinds) == {"echo", "pings", "round trip", "pipeline", "receive", "asgi", "starlette", "json"}
    assert all(median["rate"] > 0 and median["cpu_us"] > 0 for median in kinds.values())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--contenders", "picows,nonsense"], "choose from picows, picows-messages, picows-published, websockets"),
        (["--loops", "twisted"], "choose from asyncio, uvloop"),
    ],
)
def test_unknown_names_are_refused(start: Start, arguments: list[str], complaint: str) -> None:
    program = start("benchmark", *arguments)
    assert complaint in program.wait_for("error:")
    program.finish(2)


def test_a_selection_of_nothing_is_told(start: Start) -> None:
    program = start("benchmark", "--only", "telepathy")
    assert program.finish(1) == ["No case has 'telepathy' in its name"]


def test_one_failure_is_not_the_end_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    contenders = [
        benchmark.Contender("unknown", "nonsense", (), from_checkout=True),
        benchmark.Contender("not installed", "picows", (), from_checkout=True),
        benchmark.CONTENDERS["picows"],
    ]
    case = Case("echo", 256, 4, 2, loop="asyncio")
    broken = {"not installed": "no such package"}
    results = asyncio.run(benchmark.run_case(case, contenders, broken, 2, 0.01, Progress(6)))
    assert [result.failed for result in results] == ["KeyError: 'nonsense'", "no such package", ""]
    assert [len(result.samples) for result in results] == [0, 0, 2]
    assert table_row(results).split()[6:8] == ["failed", "failed"]
    assert failures(results) == [
        "unknown failed in echo 256 d4 c2 tcp asyncio: KeyError: 'nonsense'",
        "not installed failed in echo 256 d4 c2 tcp asyncio: no such package",
    ]


def test_a_limit_of_open_files_reduces_the_connections(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [Case("echo", 256, 1, 10_000), Case("echo", 256, 1, 8)]
    assert [case.connections for case in benchmark.within_limits(cases, 900)] == [900, 8]
    assert capsys.readouterr().out.startswith("Only 900 connections instead of 10000")


def test_a_narrow_terminal_gets_a_line_for_each_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [Result(Case("idle"), name, [Sample(kib=2.5)]) for name in ("picows", "aiohttp")]
    monkeypatch.setenv("COLUMNS", "80")
    assert [line.split()[0] for line in table_row(results).splitlines()] == ["idle", "picows", "aiohttp"]
    monkeypatch.setenv("COLUMNS", "120")
    assert table_row(results).split() == ["idle", "tcp", "uvloop", "2.5", "KiB", "±0%", "2.5", "KiB", "±0%"]


def test_medians_and_spread() -> None:
    result = Result(Case("echo"), "picows", [Sample(rate=rate) for rate in (90.0, 100.0, 130.0)])
    assert result.median("rate") == 100.0
    assert result.spread("rate") == 0.2


class Settling(benchmark.Trial):
    """Its samples differ by less the longer they take."""

    def __init__(self, name: str, from_seconds: float) -> None:
        super().__init__(Case("echo"), benchmark.Contender(name, "picows", (), from_checkout=True))
        self.from_seconds = from_seconds

    async def sample(self, seconds: float) -> Sample:
        odd = len(self.result.samples) % 2
        return Sample(100.0 + 50 * odd * (seconds < self.from_seconds), 10.0, 1.0)


def test_what_varies_is_measured_for_longer() -> None:
    trials = [Settling("a", 0), Settling("b", 0.5), Settling("c", 100)]

    async def measure() -> None:
        for trial in trials:
            for _ in range(3):
                await trial.measure(0.2)
        await benchmark.measure_longer(trials, 3, 0.2)

    asyncio.run(measure())
    assert [len(trial.result.samples) for trial in trials] == [3, 3, 3]
    assert [trial.result.seconds for trial in trials] == [0.2, 0.8, 3.2]
    assert [trial.result.unsteady for trial in trials] == [False, False, True]
    assert benchmark.unsteady([trial.result for trial in trials]) == [
        "c varied by more than 15% in echo tcp uvloop, in samples of 3.2 s"
    ]


def test_the_published_package_is_called_so() -> None:
    about = {
        "conditions": {**benchmark.conditions(), "runs": 3, "seconds": 0.4},
        "versions": {"picows": {"picows": "3.0.0"}, "picows-published": {"picows": "2.3.1"}, "aiohttp": {"aiohttp": "3.14"}},
    }
    assert [label(name, about) for name in ("picows", "picows-messages", "picows-published", "aiohttp")] == [
        "picows",
        "picows, messages",
        "published picows 2.3.1",
        "aiohttp",
    ]
    *_, versions, length = caption(about, "uvloop").splitlines()
    assert versions == "picows 3.0.0, published picows 2.3.1, aiohttp 3.14"
    assert length.startswith("Medians of 3 samples of 0.4 s each")


@pytest.mark.filterwarnings("ignore")  # other people's
def test_the_charts_are_drawn_from_the_json(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cases = [case for case in benchmark.all_cases(["uvloop"], quick=True) if not case.tls]
    results = [
        Result(case, name, [Sample(kib=3.0)] if case.kind == "idle" else [Sample(1000.0, 10.0, 1.0), Sample(900.0, 11.0, 1.0)])
        for case in cases
        for name in ("picows", "aiohttp")
    ]
    write_json(tmp_path / "benchmark.json", {"conditions": benchmark.conditions()}, results)
    about, read = read_json(tmp_path / "benchmark.json")
    assert read == results
    for chart in draw_charts(tmp_path, about, read):
        assert chart.read_bytes().startswith(b"\x89PNG")
