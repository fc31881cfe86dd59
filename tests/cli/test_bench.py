"""Load, and what is told of it."""

from __future__ import annotations

import re

import pytest

from picows import WSFrame, WSListener, WSMsgType, WSTransport
from picows.cli.bench import Histogram
from tests.cli.programs import Open, Run
from tests.cli.servers import serving


def test_rate_and_latencies_are_told(run: Run, echo: str) -> None:
    ended = run("bench", echo, "-t", 0.2, "-c", 3, "-d", 4, "-s", 100)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == "3 connections, 4 in flight on each, 100 bytes, 0.2 s"
    total = int(re.match(r"([\d,]+) messages, [\d,]+ a second, [\d.,]+ MB/s each way$", lines[1])[1].replace(",", ""))  # type: ignore[index]
    assert total >= 12
    percentiles = [re.fullmatch(r" *(\S+) +([\d.]+) ms", line) for line in lines[2:7]]
    assert [match and match[1] for match in percentiles] == ["p50", "p90", "p99", "p99.9", "max"]
    values = [float(match[2]) for match in percentiles if match]
    assert values == sorted(values)
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines[8:]) == total


def test_the_bar_grows_on_a_terminal_only(open_terminal: Open, echo: str) -> None:
    terminal = open_terminal("bench", echo, "-t", 0.5, "-c", 1)
    terminal.wait_for(r"\[#+ *\] [\d,]+ messages")
    terminal.wait_for("p99.9")
    assert terminal.end()[0] == 0


class Stranger(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(WSMsgType.TEXT, "something else")


class Leaver(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send_close(1013)


@pytest.mark.parametrize(
    ("listener", "problem"),
    [(Stranger, "the server does not echo"), (Leaver, "the server has closed a connection: 1013"), (WSListener, "no message")],
)
def test_a_server_of_another_kind_is_told(run: Run, listener: type[WSListener], problem: str) -> None:
    with serving(lambda request: listener()) as url:
        ended = run("bench", url, "-t", 0.2, "-c", 2)
    assert ended.returncode == 1
    assert problem in ended.stderr


def test_percentiles_are_right_to_two_percent() -> None:
    histogram = Histogram()
    for number in range(1, 1001):
        histogram.add(number / 1000)
    assert histogram.total == 1000
    assert histogram.maximum == 1.0
    for share in (0.001, 0.5, 0.9, 0.999, 1):
        assert histogram.percentile(share) == pytest.approx(share, rel=0.02)


def test_bars_are_in_order_and_complete() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.001, 0.0011, 0.004, 0.0041):
        histogram.add(seconds)
    counts = [int(line.split()[-1]) for line in histogram.lines()]
    assert counts[0] == 1
    assert sum(counts) == 5
    assert counts[-4:] != [0, 0, 0, 0]
