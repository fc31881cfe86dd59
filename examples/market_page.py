"""A live market in the browser, and beside it a reader that is too slow for it. The page comes from the same port.

Every quote is one call, `publish(..., latest=symbol)`, for all who look. A browser keeps up, and gets each of them.
"Slow reader" on the page starts a client behind a line of a few KiB a second, and shows what that one gets: some quotes late,
most of them never, and no price behind a newer one of its symbol.

$ python -m examples.market_page --port 9001        # then open http://127.0.0.1:9001/
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import random
import secrets
import socket
from pathlib import Path

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSServer,
    WSTopics,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_connect,
    ws_create_server,
)

PAGE = Path(__file__).with_suffix(".html").read_bytes()
SYMBOLS = 240
HISTORY = 48  # prices of each symbol that a page begins with
SPEEDS = (1, 4, 16)  # of lines for slow readers, in KiB a second
FIGURES = ("frames_sent", "bytes_sent", "queued", "max_queued", "replaced")  # of a connection, and of the server


class Market:
    """Prices that wander about."""

    def __init__(self) -> None:
        chance = self._chance = random.Random(2)
        names = ("".join(letters) for letters in itertools.product("BDGHLMNRTVZ", "AEIOU", "LMNRV"))
        self.symbols = sorted(chance.sample(sorted(names), SYMBOLS))
        self._liveliness = list(itertools.accumulate(chance.paretovariate(1.2) for _ in self.symbols))
        self.opened = [round(chance.lognormvariate(4, 1), 2) for _ in self.symbols]
        self.prices = [collections.deque([price], HISTORY) for price in self.opened]
        self._count = 0
        for _ in range(60 * SYMBOLS):
            self.quote()

    def quote(self) -> tuple[str, str]:
        """The next one: its symbol, and the message. Quotes are numbered, so that a page sees what a slow reader has not got."""
        (at,) = self._chance.choices(range(SYMBOLS), cum_weights=self._liveliness)
        price = self.prices[at][-1] * self._chance.lognormvariate(0, 0.002)
        price += 0.01 * (self.opened[at] - price)  # back to where it was, by and by
        self.prices[at].append(round(price, 2))
        self._count += 1
        return self.symbols[at], f'["quote",{at},{self.prices[at][-1]},{self._count}]'

    def so_far(self) -> str:
        rows = zip(self.symbols, self.opened, map(list, self.prices))
        return json.dumps(["market", list(rows), SPEEDS])


class Viewer(WSListener):
    """A page, on the side of the server."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.token = secrets.token_urlsafe()  # the path of its slow reader
        self.slow: WSTransport | None = None  # its slow reader, on the side of the server
        self._reading: asyncio.Task[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._site.viewers[self.token] = self
        transport.send(WSMsgType.TEXT, self._site.market.so_far())
        self._site.topics.subscribe(transport, "quotes")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """The page asks for a slow reader of so many KiB a second, or for none."""
        if frame.msg_type == WSMsgType.TEXT:
            self._stop_reading()
            speed = frame.get_payload_as_utf8_text()
            if speed in map(str, SPEEDS):
                self._reading = asyncio.create_task(read_slowly(self.token, int(speed) * 1024, transport))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        del self._site.viewers[self.token]
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    def send_figures(self, now: float, server: dict[str, float]) -> None:
        slow = None if self.slow is None else figures(self.slow)
        told = json.dumps(["figures", now, len(self._site.viewers), server, figures(self.transport), slow])
        self.transport.send_latest("figures", WSMsgType.TEXT, told)


def figures(of: WSServer | WSTransport) -> dict[str, float]:
    stats = of.stats()
    return {name: getattr(stats, name) for name in FIGURES}


class SlowViewer(WSListener):
    """A slow reader, on the side of the server: what makes it slow is the line."""

    def __init__(self, site: Site, viewer: Viewer) -> None:
        self._site, self._viewer = site, viewer

    def on_ws_connected(self, transport: WSTransport) -> None:
        # Between two programs of one machine the kernel would hold megabytes. A line like this one holds little.
        sock = transport.underlying_transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._viewer.slow = transport
        self._site.topics.subscribe(transport, "quotes")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._viewer.slow is transport:
            self._viewer.slow = None


class SlowReader(WSListener):
    """A slow reader, on its own side: tells the page what it gets."""

    def __init__(self, page: WSTransport) -> None:
        self._page = page

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            _, symbol, rest = frame.get_payload_as_bytes().split(b",", 2)
            self._page.send_latest((b"late", symbol), WSMsgType.TEXT, b'["late",%b,%b' % (symbol, rest))


async def read_slowly(token: str, speed: int, page: WSTransport) -> None:
    """Be a client at the end of a line that carries so many bytes a second."""
    server = page.underlying_transport.get_extra_info("socket")
    near, far = socket.socketpair()
    with near, far, socket.socket(server.family) as sock:
        far.setblocking(False)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(sock, server.getsockname())
        line = asyncio.gather(carry(sock, far, speed), carry(far, sock, speed))
        try:
            url = f"ws://localhost/{token}"  # a name for the Host header; the socket is connected already
            transport, _ = await ws_connect(lambda: SlowReader(page), url, socket_factory=lambda _: near)
            try:
                await transport.wait_disconnected()
            finally:
                transport.disconnect(graceful=False)
        finally:
            line.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await line


async def carry(source: socket.socket, target: socket.socket, speed: int) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, speed // 20):
        await loop.sock_sendall(target, data)
        await asyncio.sleep(len(data) / speed)
    target.shutdown(socket.SHUT_WR)


class Site:
    """What is at the port."""

    def __init__(self) -> None:
        self.market = Market()
        self.topics = WSTopics()
        self.viewers: dict[str, Viewer] = {}

    def route(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
        path = request.target_path
        if path == "/":
            headers = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(PAGE, headers), None)
        if path == "/market":
            return Viewer(self)
        viewer = self.viewers.get(path[1:])
        return None if viewer is None else SlowViewer(self, viewer)  # None: 404

    async def publish_quotes(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        begin, count = loop.time(), 0
        while True:
            await asyncio.sleep(0.02)
            while count < (loop.time() - begin) * rate:
                symbol, quote = self.market.quote()
                self.topics.publish("quotes", WSMsgType.TEXT, quote, latest=symbol)
                count += 1

    async def tell_figures(self, server: WSServer) -> None:
        while True:
            await asyncio.sleep(0.5)
            now, told = asyncio.get_running_loop().time(), figures(server)
            for viewer in list(self.viewers.values()):
                viewer.send_figures(now, told)


async def main(host: str, port: int, rate: float) -> None:
    site = Site()
    server = await ws_create_server(site.route, host, port, assemble_messages=True)
    for sock in server.sockets:
        print("Listening on http://{}:{}/".format(*sock.getsockname()))
    await asyncio.gather(server.serve_forever(), site.publish_quotes(rate), site.tell_figures(server))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    parser.add_argument("--rate", type=float, default=500, help="quotes a second (500)")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.host, args.port, args.rate))
