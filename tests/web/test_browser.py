"""The chat in a browser, where one is installed: its page, and two people who talk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (chromium and chromedriver), reason="no chromium and chromedriver"),
    pytest.mark.timeout(180),  # a busy machine is slow to start a browser
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the driver's own
]


@pytest.fixture
def chat() -> Iterator[str]:
    """Where the example listens."""
    command = [sys.executable, "-u", "-W", "error", "-m", "examples.web_chat", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.implicitly_wait(60)  # at most, for what is looked for
    try:
        yield driver
    finally:
        driver.quit()


def enter(browser: Any, url: str, name: str) -> str:
    """Open the page in a window of its own, and wait until it is connected; returns the window."""
    browser.switch_to.new_window("tab")
    browser.get(url)
    browser.find_element("xpath", "//span[@id='state'][text()='Connected']")
    browser.find_element("id", "name").send_keys(name)
    return str(browser.current_window_handle)


def say(browser: Any, window: str, text: str) -> None:
    browser.switch_to.window(window)
    browser.find_element("id", "text").send_keys(text)
    browser.find_element("tag name", "button").click()


def heard(browser: Any, window: str, count: int) -> list[str]:
    browser.switch_to.window(window)
    browser.find_element("css selector", f"#messages li:nth-child({count})")
    # What stands before the text by its style is not part of it.
    return [item.get_property("textContent") for item in browser.find_elements("css selector", "#messages li")]


def test_people_talk_in_rooms(browser: Any, chat: str) -> None:
    anna, bert = enter(browser, chat, "Anna"), enter(browser, f"{chat}?room=tea", "Bert")
    carl = enter(browser, f"{chat}?room=coffee", "Carl")
    say(browser, anna, "<b>hello</b>")
    assert heard(browser, bert, 1) == ["Anna<b>hello</b>"]
    say(browser, bert, "hello Anna \u20ac")
    assert heard(browser, anna, 2) == ["Anna<b>hello</b>", "Berthello Anna \u20ac"]
    say(browser, carl, "alone")
    assert heard(browser, carl, 1) == ["Carlalone"]
    browser.switch_to.window(bert)
    browser.close()
    say(browser, anna, "still here")
    assert len(heard(browser, anna, 3)) == 3
