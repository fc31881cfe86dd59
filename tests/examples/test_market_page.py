"""The live market without a browser: what is sent to a page. tests/peers/test_market_page.py opens it in one."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

from picows.websockets import ClientConnection, connect
from tests.examples.program import Start

SYMBOLS = 240


class Page:
    """What has come, checked as it comes."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.quotes: dict[int, tuple[int, float]] = {}
        self.late: dict[int, list[int]] = {}  # the numbers that a slow reader has got, of each symbol
        self.figures: list[dict[str, Any] | None] = []

    async def take(self) -> None:
        kind, *rest = json.loads(await self._connection.recv())
        if kind == "quote":
            at, price, number = rest
            self.quotes[number] = at, price
        elif kind == "late":
            at, price, number = rest
            assert self.quotes.get(number, (at, price)) == (at, price)
            self.late.setdefault(at, []).append(number)
        else:
            assert kind == "figures"
            self.figures = rest[2:]


async def look(url: str) -> None:
    async with connect(f"ws{url.removeprefix('http')}market") as connection:
        kind, rows, speeds = json.loads(await connection.recv())
        assert kind == "market"
        assert len({symbol for symbol, _, _ in rows}) == SYMBOLS
        assert all(opened > 0 and prices for _, opened, prices in rows)
        page = Page(connection)
        while not page.figures:
            await page.take()
        server, you, slow = page.figures
        assert slow is None
        assert page.quotes

        await connection.send(str(speeds[1]))
        while slow is None or slow["replaced"] < 300 or sum(map(len, page.late.values())) < 50:
            await page.take()
            server, you, slow = page.figures
        assert server is not None
        assert you is not None
        assert server["replaced"] >= slow["replaced"] > you["replaced"] == 0
        assert 0 < slow["max_queued"] < SYMBOLS * 60
        # One number after the other: this page has missed none.
        assert sorted(page.quotes) == list(range(min(page.quotes), max(page.quotes) + 1))
        for numbers in page.late.values():
            assert numbers == sorted(set(numbers)), "an old one behind a newer one"

        await connection.send("0")
        while slow is not None:
            await page.take()
            slow = page.figures[2]


def test_a_slow_reader_gets_the_newest_of_each_symbol(start: Start) -> None:
    server = start("market_page", "--port", 0, "--rate", 2000)
    url = server.url()
    with urllib.request.urlopen(url) as page:
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert b"<title>Live market</title>" in page.read()
    asyncio.run(look(url))
    server.interrupt()
    server.finish()


def test_viewers_are_told_when_the_market_closes(start: Start) -> None:
    server = start("market_page", "--port", 0)
    url = server.url()

    async def stay() -> int | None:
        async with connect(f"ws{url.removeprefix('http')}market") as connection:
            await connection.send("1")
            async for message in connection:
                if str(message).startswith('["late"'):
                    server.interrupt()
                    break
            await connection.wait_closed()
            return connection.close_code

    assert asyncio.run(stay()) == 1001
    server.finish()
