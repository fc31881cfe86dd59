"""Round-trip times in the terminal."""

from __future__ import annotations

import re
import signal

from picows import WSListener
from tests.cli.programs import Run, Start
from tests.cli.servers import serving


def test_pings_are_counted_and_summed_up(run: Run, echo: str) -> None:
    ended = run("ping", echo, "-c", 3, "-i", 0.01)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, *pongs, blank, title, counts, times = ended.stdout.splitlines()
    address = re.search(r"127\.0\.0\.1:\d+", echo)[0]  # type: ignore[index]
    assert first == f"PING {echo} ({address})"
    assert [line.rpartition("=")[0] for line in pongs] == [
        f"pong from {address}: seq={number} time" for number in (1, 2, 3)
    ]
    assert (blank, title, counts) == ("", f"--- {echo} ---", "3 pings sent, 3 pongs received, 0% lost")
    shown = re.fullmatch(r"round trip min/avg/max/stddev = ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+) ms", times)
    assert shown is not None
    lowest, mean, highest, _ = map(float, shown.groups())
    each = [float(line.rpartition("=")[2].split()[0]) for line in pongs]
    assert (lowest, highest) == (min(each), max(each))
    assert lowest <= mean <= highest


def test_ctrl_c_sums_up(start: Start, echo: str) -> None:
    program = start("ping", echo)
    program.wait_for("seq=1 ")
    program.signal(signal.SIGINT)
    code, printed = program.end()
    assert code == 0
    assert re.search(r"\d pings? sent, \d pongs? received", printed)


def test_ctrl_c_before_the_count_sums_up_what_there_is(start: Start, echo: str) -> None:
    program = start("ping", echo, "-c", 1000, "-i", 1000)
    program.wait_for("seq=1 ")
    program.signal(signal.SIGINT)
    code, printed = program.end()
    assert code == 130
    assert re.search(r"1 pings sent, 1 pongs received, 0% lost\n.*/avg/", printed)


def test_a_server_without_pongs_is_told(run: Run) -> None:
    with serving(lambda request: WSListener(), enable_auto_pong=False) as url:
        ended = run("ping", url, "-c", 2, "-i", 0, "-W", 0.05)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[1:3] == ["no pong within 0.05 s: seq=1", "no pong within 0.05 s: seq=2"]
    assert ended.stdout.splitlines()[-1] == "2 pings sent, 0 pongs received, 100% lost"


def test_a_lost_connection_is_told(start: Start) -> None:
    server = start("echo", "--port", 0)
    program = start("ping", server.url(), "-i", 0.01)
    program.wait_for("seq=2 ")
    server.kill()
    code, printed = program.end()
    assert code == 0
    assert "the connection was lost" in printed
