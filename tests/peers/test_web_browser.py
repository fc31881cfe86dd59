"""The chat in browsers, where they are installed: its page, and people who talk."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.browsers import Browser, Session, chromium, firefox

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(180)  # a busy machine is slow to start a browser

# Waits until something is true in the page.
UNTIL = """
look => new Promise(resolve => {
    new MutationObserver(() => look() && resolve()).observe(document, {childList: true, characterData: true, subtree: true});
    if (look()) resolve();
})
"""


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


@pytest.fixture(params=[chromium, firefox], ids=lambda start: start.__name__)
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    with request.param(tmp_path) as running:
        yield running


async def enter(session: Session, url: str, name: str) -> str:
    """Open the page in a tab of its own, and wait until it is connected."""
    page = await session.open(url)
    await session.evaluate(page, f"({UNTIL})(() => document.getElementById('state').textContent == 'Connected')")
    await session.evaluate(page, f"document.getElementById('name').value = {json.dumps(name)}")
    return page


async def say(session: Session, page: str, text: str) -> None:
    await session.evaluate(page, f"document.getElementById('text').value = {json.dumps(text)}")
    await session.evaluate(page, "document.querySelector('button').click()")


async def heard(session: Session, page: str, count: int) -> Any:
    items = "Array.from(document.querySelectorAll('#messages li'))"
    await session.evaluate(page, f"({UNTIL})(() => {items}.length >= {count})")
    return await session.evaluate(page, f"{items}.map(item => item.textContent)")


def test_people_talk_in_rooms(browser: Browser, chat: str) -> None:
    async def talk() -> None:
        async with browser.session() as session:
            anna, bert = await enter(session, chat, "Anna"), await enter(session, f"{chat}?room=tea", "Bert")
            carl = await enter(session, f"{chat}?room=coffee", "Carl")
            await say(session, anna, "<b>hello</b>")
            assert await heard(session, bert, 1) == ["Anna<b>hello</b>"]
            await say(session, bert, "hello Anna \u20ac")
            assert await heard(session, anna, 2) == ["Anna<b>hello</b>", "Berthello Anna \u20ac"]
            await say(session, carl, "alone")
            assert await heard(session, carl, 1) == ["Carlalone"]
            await session.close(bert)
            await say(session, anna, "still here")
            assert len(await heard(session, anna, 3)) == 3

    asyncio.run(talk())
