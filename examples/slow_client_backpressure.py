"""A server that produces faster than its client reads: how to pause, instead of hoarding.

`send` never blocks: what the network does not take waits in memory. When more than the high-water
mark waits, the listener's `pause_writing` is called; when less than the low one, `resume_writing`.

$ python -m examples.slow_client_backpressure
"""

from __future__ import annotations

import argparse
import asyncio

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
    ws_create_server,
)

HIGH_WATER = 256 * 1024
MESSAGE = bytes(16 * 1024)


class Producer(WSListener):
    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.pauses = 0
        self.most_unsent = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.underlying_transport.set_write_buffer_limits(HIGH_WATER)
        self._task = asyncio.get_running_loop().create_task(self._produce(transport))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._task.cancel()  # it may be waiting for a client that will never read again

    def pause_writing(self) -> None:
        self.pauses += 1
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    async def _produce(self, transport: WSTransport) -> None:
        for _ in range(self._messages):
            await self._may_write.wait()
            transport.send(WSMsgType.BINARY, MESSAGE)
            unsent = transport.underlying_transport.get_write_buffer_size()
            self.most_unsent = max(self.most_unsent, unsent)
        transport.send_close(WSCloseCode.OK)


class SlowClient(WSListener):
    """Takes a rest after every 64 messages."""

    REST = 0.005  # seconds

    def __init__(self) -> None:
        self.received = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.BINARY:
            self.received += 1
            if self.received % 64 == 0:
                # A socket that is not read fills up, and with it, in turn, the server's.
                socket = transport.underlying_transport
                socket.pause_reading()
                asyncio.get_running_loop().call_later(self.REST, socket.resume_reading)


async def main(messages: int) -> None:
    producer = Producer(messages)
    server = await ws_create_server(lambda request: producer, "127.0.0.1", 0)
    url = "ws://{}:{}/".format(*server.sockets[0].getsockname())

    client = SlowClient()
    transport, _ = await ws_connect(lambda: client, url)
    await transport.wait_disconnected()
    server.close()
    await server.wait_closed()

    print(f"The client received {client.received} of {messages} messages")
    print(f"The producer paused {producer.pauses} times")
    print(f"At most {producer.most_unsent // 1024} KiB were waiting to be sent")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=4000, help="of 16 KiB each")
    asyncio.run(main(parser.parse_args().messages))
