"""The live market in browsers, where they are installed: prices that move, a slow reader that stays behind, figures."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.browsers import Browser, Session, chromium, firefox
from tests.peers.programs import ROOT

pytestmark = pytest.mark.timeout(300)  # a busy machine is slow to start a browser

# Resolves when something is true in the page.
UNTIL = "look => new Promise(resolve => { const timer = setInterval(() => look() && resolve(clearInterval(timer)), 20); })"

TILES = "Array.from(document.querySelectorAll('#grid li'))"


class Market:
    """The page, as who looks at it."""

    def __init__(self, session: Session, page: str) -> None:
        self._session, self._page = session, page

    async def run(self, code: str) -> Any:
        return await self._session.evaluate(self._page, code)

    async def until(self, condition: str) -> None:
        await self.run(f"({UNTIL})(() => {condition})")

    async def text(self, name: str) -> str:
        return str(await self.run(f"document.getElementById('{name}').textContent"))

    async def numbers(self, kind: str) -> dict[str, int]:
        """Of the quotes that the tiles show: "number" is the page's own, "late" is the slow reader's."""
        pairs = f"{TILES}.map(tile => [tile.dataset.symbol, Number(tile.dataset.{kind} || 0)])"
        found: dict[str, int] = await self.run(f"Object.fromEntries({pairs})")
        return found

    async def is_shown(self, name: str) -> bool:
        return bool(await self.run(f"document.getElementById('{name}').checkVisibility()"))

    async def click(self, selector: str) -> None:
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def resize(self, width: int) -> None:
        await self._session.resize(self._page, width, 800)


def figure(name: str) -> str:
    """The number that a figure of the page begins with, as JavaScript."""
    return f"Number(document.getElementById('{name}').textContent.split(' ')[0].replaceAll(',', ''))"


def moved(since: dict[str, int]) -> str:
    """How many tiles have had another quote since then, as JavaScript."""
    return f"{TILES}.filter(tile => Number(tile.dataset.number || 0) > {json.dumps(since)}[tile.dataset.symbol]).length"


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-u", "-W", "error", "-m", "examples.market_page", "--port", "0", "--rate", "150"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline().split()[-1]


@pytest.fixture(params=[chromium, firefox], ids=lambda start: start.__name__)
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    with request.param(tmp_path) as running:
        yield running


def test_prices_move_and_a_slow_reader_stays_behind(browser: Browser, server: subprocess.Popen[str], url: str) -> None:
    async def look() -> None:
        async with browser.session() as session:
            market = Market(session, await session.open(url))
            await market.until(f"{TILES}.length == 240")
            assert await market.text("state") == "Connected"
            await market.until(f"{moved(await market.numbers('number'))} > 50")
            await market.until(f"{figure('you-rate')} > 30")
            assert await market.text("viewers") == "1"
            assert not await market.is_shown("late")

            await market.click("label:has([value='1'])")
            assert await market.is_shown("late")
            seen: dict[str, int] = {}
            while await market.run(f"{figure('slow-replaced')} <= 100 || {figure('behind')} <= 0.2"):
                late, own = await market.numbers("late"), await market.numbers("number")
                for symbol, number in late.items():
                    assert seen.get(symbol, 0) <= number <= own[symbol]
                seen.update(late)
            assert sum(number > 0 for number in seen.values()) > 20
            assert await market.run(f"0 < {figure('slow-rate')} && {figure('slow-rate')} < {figure('you-rate')}")
            assert (await market.text("backwards"), await market.text("you-replaced")) == ("0", "0")
            await market.until(f"{figure('slow-replaced')} > {await market.run(figure('slow-replaced'))}")

            await market.click("label:has([value='0'])")
            assert not await market.is_shown("late")
            await market.click("#pause")
            paused = await market.numbers("number")
            await market.until(f"{figure('server-bytes')} != {await market.run(figure('server-bytes'))}")
            assert await market.numbers("number") == paused
            await market.click("#pause")
            await market.until(f"{moved(paused)} > 0")

            server.send_signal(signal.SIGINT)
            await market.until("document.getElementById('state').textContent.includes('1001')")

    asyncio.run(look())


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_it_fits_every_screen(browser: Browser, url: str, width: int) -> None:
    async def look() -> None:
        async with browser.session() as session:
            market = Market(session, await session.open(url))
            await market.resize(width)
            await market.until(f"{TILES}.length == 240")
            await market.click("label:has([value='1'])")
            await market.until(f"{TILES}.some(tile => Number(tile.dataset.late || 0))")
            assert await market.run("document.documentElement.scrollWidth") <= width
            columns = await market.run(f"new Set({TILES}.map(tile => tile.offsetLeft)).size")
            assert columns == pytest.approx(width / 125, abs=2)

    asyncio.run(look())
