"""`async for` over the messages of a connection, by a queue between the callback and the reader.

It costs a copy of each payload and a turn of the event loop, so it suits code where convenience
counts more than latency.

$ python -m examples.echo_client_async_iteration --url ws://127.0.0.1:9001/
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class MessageStream(WSListener):
    """Queues text messages of one frame, for `async for` or `receive`."""

    # A reader slower than the peer would fill the memory. Beyond this many waiting messages the
    # socket is not read, and in the end the peer has to wait.
    MAX_WAITING = 1000

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._socket = transport.underlying_transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            self._queue.put_nowait(frame.get_payload_as_utf8_text())
            if self._queue.qsize() == self.MAX_WAITING:
                self._socket.pause_reading()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._queue.put_nowait(None)

    async def receive(self) -> str | None:
        """The next message; None, once, when the connection has ended."""
        message = await self._queue.get()
        if self._queue.qsize() == self.MAX_WAITING // 2:
            self._socket.resume_reading()
        return message

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            message = await self.receive()
            if message is None:
                return
            yield message


async def main(url: str) -> None:
    stream = MessageStream()
    transport, _ = await ws_connect(lambda: stream, url)

    transport.send(WSMsgType.TEXT, "a question")
    print(f"Answer: {await stream.receive()}")

    messages = ["one", "two", "three"]
    for message in messages:
        transport.send(WSMsgType.TEXT, message)
    async for message in stream:
        print(f"Echo reply: {message}")
        if message == messages[-1]:
            # The server answers with its own CLOSE, which ends the stream.
            transport.send_close(WSCloseCode.OK)
    print("End of stream")
    # The stream ends in silence; this raises the error, if it was an error that ended it.
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    asyncio.run(main(parser.parse_args().url))
