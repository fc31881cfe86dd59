"""The live market in a browser: prices that move, a slow reader that stays behind, figures."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.programs import ROOT, chromium_driver

pytestmark = [
    pytest.mark.timeout(300),  # a busy machine is slow to start a browser
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the browser's driver
]

NUMBERS = """
return Object.fromEntries(Array.from(document.querySelectorAll("#grid li"),
    item => [item.dataset.symbol, Number(item.dataset[arguments[0]] || 0)]));
"""


class Market:
    """The page, as who looks at it."""

    def __init__(self, driver: Any, url: str) -> None:
        self._driver = driver
        driver.get(url)

    def run(self, script: str, *arguments: object) -> Any:
        return self._driver.execute_script(script, *arguments)

    def text(self, name: str) -> str:
        return str(self._driver.find_element("id", name).text)

    def number(self, name: str) -> float:
        return float(self.text(name).split(" ")[0].replace(",", ""))

    def numbers(self, kind: str) -> dict[str, int]:
        """Of the quotes that the tiles show: "number" is the page's own, "late" is the slow reader's."""
        found: dict[str, int] = self.run(NUMBERS, kind)
        return found

    def prices(self) -> list[str]:
        found: list[str] = self.run("return Array.from(document.querySelectorAll('#grid .price'), item => item.textContent)")
        return found

    def is_shown(self, name: str) -> bool:
        return bool(self._driver.find_element("id", name).is_displayed())

    def click(self, selector: str) -> None:
        self._driver.find_element("css selector", selector).click()

    def wait(self, condition: Callable[[], object]) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self._driver, 120, 0.05).until(lambda _: condition())

    def resize(self, width: int) -> None:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-u", "-W", "error", "-m", "examples.market_page", "--port", "0", "--rate", "150"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def market(server: subprocess.Popen[str], tmp_path: Path) -> Iterator[Market]:
    driver = chromium_driver(tmp_path)
    try:
        assert server.stdout is not None
        yield Market(driver, server.stdout.readline().split()[-1])
    finally:
        driver.quit()


def test_prices_move_and_a_slow_reader_stays_behind(market: Market, server: subprocess.Popen[str]) -> None:
    market.wait(lambda: len(market.prices()) == 240)
    assert market.text("state") == "Connected"
    before, prices = market.numbers("number"), market.prices()
    market.wait(lambda: sum(number > before[symbol] for symbol, number in market.numbers("number").items()) > 50)
    assert market.prices() != prices
    market.wait(lambda: market.number("you-rate") > 30)
    assert market.text("viewers") == "1"
    assert not market.is_shown("late")

    market.click("label:has([value='1'])")
    assert market.is_shown("late")
    seen: dict[str, int] = {}

    def look_at_the_slow_one() -> bool:
        late, own = market.numbers("late"), market.numbers("number")
        for symbol, number in late.items():
            assert seen.get(symbol, 0) <= number <= own[symbol]
        seen.update(late)
        return market.number("slow-replaced") > 100 and market.number("behind") > 0.2

    market.wait(look_at_the_slow_one)
    assert sum(number > 0 for number in seen.values()) > 20
    assert 0 < market.number("slow-rate") < market.number("you-rate")
    assert (market.text("backwards"), market.text("you-replaced")) == ("0", "0")
    replaced = market.number("slow-replaced")
    market.wait(lambda: market.number("slow-replaced") > replaced)

    market.click("label:has([value='0'])")
    assert not market.is_shown("late")
    market.click("#pause")
    paused = market.numbers("number")
    rate = market.number("server-bytes")
    market.wait(lambda: market.number("server-bytes") != rate)
    assert market.numbers("number") == paused
    market.click("#pause")
    market.wait(lambda: market.numbers("number") != paused)

    server.send_signal(signal.SIGINT)
    market.wait(lambda: "1001" in market.text("state"))
    assert not [complaint for complaint in market.complaints() if "WebSocket" not in complaint]


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_it_fits_every_screen(market: Market, width: int) -> None:
    market.resize(width)
    market.click("label:has([value='1'])")
    market.wait(lambda: any(market.numbers("late").values()))
    assert market.run("return document.documentElement.scrollWidth") <= width
    columns = market.run("return new Set(Array.from(document.querySelectorAll('#grid li'), item => item.offsetLeft)).size")
    assert columns == pytest.approx(width / 125, abs=2)
