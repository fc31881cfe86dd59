"""Servers in a thread, beside a test that waits for a process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from picows import WSListener, WSServer, WSUpgradeRequest, ws_create_server


@contextlib.contextmanager
def serving(factory: Callable[[WSUpgradeRequest], WSListener], host: str = "127.0.0.1", **options: Any) -> Iterator[str]:
    """The URL of a server that runs as long as the block does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> WSServer:
        return await ws_create_server(factory, host, 0, **options)

    async def end(server: WSServer) -> None:
        server.close()
        server.abort_clients()
        await server.wait_closed()

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
    try:
        yield f"ws://{host}:{server.sockets[0].getsockname()[1]}/"
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
