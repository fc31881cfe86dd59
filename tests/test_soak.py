"""The soak of fuzz/soak.py: a few seconds of it, and that it finds what is wrong."""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FUZZ = ROOT / "fuzz"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the soak reads /proc")


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    """soak_figures and soak_messages, which import their neighbours as programs do."""
    sys.path.insert(0, str(FUZZ))
    try:
        yield importlib.import_module("soak_figures"), importlib.import_module("soak_messages")
    finally:
        sys.path.remove(str(FUZZ))


def soak(*options: str) -> tuple[int, str]:
    # What lasts long on a loaded machine is no fault.
    command = [sys.executable, str(FUZZ / "soak.py"), "--life", "0.3", "--patience", "50", "--settle", "5", "--seed", "1", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOAK_PAUSE_FILE": ""}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return run.returncode, run.stdout


def test_a_short_soak() -> None:
    status, printed = soak("--seconds", "1.5")
    assert status == 0, printed
    assert "0 faults, 0 figures that grow" in printed


@pytest.mark.parametrize(
    ("sabotage", "found"),
    [("lose", "were lost, or overtaken by the next"), ("leak", "when all connections had ended: .*'picows.picows.WSTransport'")],
)
def test_what_is_wrong_is_found(sabotage: str, found: str) -> None:
    # The memory of a large frame is kept, by a timer, for up to two seconds.
    status, printed = soak("--seconds", "1", "--loops", "asyncio", "--settle", "2.5", "--sabotage", sabotage)
    assert status == 1, printed
    assert re.search(found, printed), printed


def test_a_message_that_is_not_the_next(modules: Any) -> None:
    _, messages = modules
    making = messages.Messages(7, random.Random(1))
    wire = []
    for _ in range(4):
        wire.append(making.make(10))
        making.last += 1
    one, two, three, four = wire

    def fault_of(*came: bytes, kind: Any = messages.Numbers) -> str:
        numbers = kind(7)
        for message in came[:-1]:
            numbers.take(message)
        with pytest.raises((messages.Fault, messages.Damaged)) as found:
            numbers.take(came[-1])
        return str(found.value)

    messages.Numbers(7).take(one + two + three + four)
    messages.Rising(7).take(one + three)
    assert fault_of(one, three) == "messages 2 to 2 of 7 were lost, or overtaken by the next"
    assert fault_of(one, two, two) == "message 2 of 7 came behind 2: repeated, or overtaken"
    assert fault_of(one, three, two, kind=messages.Rising) == "message 2 of 7 came behind 3: repeated, or overtaken"
    assert "wrong checksum" in fault_of(one, two[:-1] + b"!")
    assert "no chunk begins" in fault_of(b"something else")
    with pytest.raises(messages.Fault, match="a message of 7 came, where those of 8 are sent"):
        messages.Numbers(8).take(one)


def test_a_figure_that_grows(modules: Any) -> None:
    figures, _ = modules
    chance = random.Random(1)

    def grown(leaked: float) -> list[str]:
        """The figures that grow too much, when every one sways, and one gets more by this in an hour's second half."""
        samples = [
            {
                **{name: 100 + chance.uniform(-1, 1) * bound.allowed / 4 for name, bound in figures.BOUNDS.items()},
                "time": 5.0 * number,
                "ours": 100 + leaked * number / 360,
            }
            for number in range(720)
        ]
        return [growth.figure for growth in figures.growths(samples) if growth.too_much]

    allowed = figures.BOUNDS["ours"].allowed
    assert grown(0) == []
    assert grown(allowed * 0.9) == []
    assert grown(allowed * 1.1) == ["ours"]
    assert grown(-allowed * 5) == []


def test_memory_grows_by_what_is_left_without_large_messages(modules: Any) -> None:
    figures, _ = modules
    chance = random.Random(1)

    def growth(leaked: float) -> float:
        """Of resident memory that is twice as much for one sample in three, and for more of them towards the end."""
        samples = [
            {
                **dict.fromkeys(figures.BOUNDS, 0.0),
                "time": 5.0 * number,
                "resident": 50_000 * (1 + (chance.random() < number / 1500)) + leaked * number / 360,
            }
            for number in range(720)
        ]
        return next(growth.growth for growth in figures.growths(samples) if growth.figure == "resident")

    assert abs(growth(0)) < 1
    assert growth(5_000) == pytest.approx(5_000, rel=0.1)


def test_a_short_run_tells_no_slope(modules: Any) -> None:
    figures, _ = modules

    def told(count: int, seconds: float) -> bool:
        """Whether so many samples, so far apart, tell something."""
        samples = [dict.fromkeys([*figures.BOUNDS, "time"], seconds * number) for number in range(count)]
        return bool(figures.growths(samples))

    assert told(2 * figures.LEAST_SAMPLES, 5.0)
    assert not told(2 * figures.LEAST_SAMPLES - 2, 5.0)
    assert not told(500, 0.1)
    assert not told(0, 5.0)


def test_a_pause(modules: Any, tmp_path: Path) -> None:
    """While the file exists nothing goes on, and the time does not count."""
    pace_of = importlib.import_module("soak_process").Pace
    file = tmp_path / "pause"

    async def test() -> None:
        pace = pace_of(1.0, str(file), random.Random(1))
        keeping = asyncio.ensure_future(pace.keep())
        await pace.turn(0)
        await pace.sleep(0.2)
        file.touch()
        while pace.going.is_set():
            await asyncio.sleep(0.01)
        active = pace.active
        turn = asyncio.ensure_future(pace.turn(0))
        await asyncio.sleep(0.3)
        assert not turn.done()
        assert pace.active == active
        file.unlink()
        await turn
        pace.finish()
        await keeping

    asyncio.run(test())
