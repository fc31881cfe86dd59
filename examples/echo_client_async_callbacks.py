"""Coroutines as callbacks: each message is handled by a task of its own.

From Python 3.12 on the task is eager: it runs at once, inside the callback, up to its first real
wait, and costs the event loop nothing if it never waits. Before 3.12 it starts in the loop's
next turn, which is the price of `create_task`.

$ python -m examples.echo_client_async_callbacks --url ws://127.0.0.1:9001/
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class AsyncListener(WSListener):
    """Turns `on_ws_frame` into `async on_message`, for messages of one frame."""

    def __init__(self) -> None:
        # The event loop keeps weak references only; without ours a waiting task could vanish.
        self._tasks: set[asyncio.Task[None]] = set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            # The frame is gone when this callback returns, the coroutine may live longer: it
            # gets the text, not the frame.
            self._start(self.on_message(transport, frame.get_payload_as_utf8_text()))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for task in self._tasks:
            task.cancel()

    async def on_message(self, transport: WSTransport, text: str) -> None:
        raise NotImplementedError

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 12):
            task = asyncio.Task(coroutine, loop=loop, eager_start=True)
        else:
            task = loop.create_task(coroutine)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class EchoClient(AsyncListener):
    def __init__(self) -> None:
        super().__init__()
        self.awaited = ["one", "two", "three"]

    def on_ws_connected(self, transport: WSTransport) -> None:
        for text in self.awaited:
            transport.send(WSMsgType.TEXT, text)

    async def on_message(self, transport: WSTransport, text: str) -> None:
        # Tasks start in the order of the messages. From the first wait on they run side by side,
        # and may end in another order.
        print(f"Received: {text}")
        await asyncio.sleep(0.01)  # a database, a request, ...
        print(f"Processed: {text}")
        self.awaited.remove(text)
        if not self.awaited:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()


async def main(url: str) -> None:
    transport, _ = await ws_connect(EchoClient, url)
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    asyncio.run(main(parser.parse_args().url))
