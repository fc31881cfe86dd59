"""How servers from the command line take leave: of whom, by what code, over what time, and with nothing lost."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from picows import WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect
from tests.cli.programs import Start

SERVER = """
import os
import time
from picows import WSListener, WSMsgType

class Talker(WSListener):
    def on_ws_connected(self, transport):
        transport.send(WSMsgType.TEXT, str(os.getpid()))

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            words = frame.get_payload_as_utf8_text()
            print("heard", words, flush=True)
            if words == "hang":
                time.sleep(1000)
            for number in range(100 * (words == "flood")):
                transport.send(WSMsgType.BINARY, number.to_bytes(4, "big") * 25_000)

    def on_ws_disconnected(self, transport):
        print("ended with", int(transport.close_code), flush=True)  # a WSCloseCode prints its name before Python 3.11

def accept(request):
    return Talker()
"""

PROMPT = 0.2  # seconds, more than a signal takes; a machine that is slower than that hides a fault, and shows none


class Client(WSListener):
    """Answers a CLOSE when it is told to."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.process: asyncio.Future[int] = loop.create_future()  # that of the server
        self.close_code: asyncio.Future[int] = loop.create_future()
        self.flooded = asyncio.Event()
        self.numbers: list[int] = []

    @classmethod
    async def connect(cls, url: str) -> Client:
        self = cls()
        self.transport, _ = await ws_connect(lambda: self, url, enable_auto_close=False)
        await self.process
        return self

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.process.set_result(int(frame.get_payload_as_bytes()))
        elif frame.msg_type == WSMsgType.BINARY:
            self.numbers.append(int.from_bytes(frame.get_payload_as_bytes()[:4], "big"))
            if not self.flooded.is_set():
                self.flooded.set()
                transport.underlying_transport.pause_reading()
        elif frame.msg_type == WSMsgType.CLOSE:
            self.close_code.set_result(int(frame.get_close_code()))


async def refused(url: str) -> None:
    """Until nobody listens there."""
    while True:
        try:
            transport, _ = await ws_connect(WSListener, url)
        except WSHandshakeError:
            continue  # taken as it closed
        except OSError:
            return
        transport.disconnect()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "talking.py").write_text(SERVER)
    return tmp_path


def arguments(workers: int, **options: object) -> list[Any]:
    further = [word for name, value in options.items() for word in (f"--shutdown-{name}", value)]
    return ["serve", "talking:accept", "--port", 0, "--workers", workers, *further]


def test_nothing_that_was_said_before_is_lost(start: Start, folder: Path) -> None:
    server = start(*arguments(1), directory=folder)
    url = server.url()

    async def main() -> None:
        client = await Client.connect(url)
        client.transport.send(WSMsgType.TEXT, "flood")
        await client.flooded.wait()
        server.signal(signal.SIGTERM)
        await refused(url)
        assert len(client.numbers) < 100
        client.transport.underlying_transport.resume_reading()
        assert await client.close_code == 1001
        assert client.numbers == list(range(100))
        # Until it has answered, a client is heard.
        client.transport.send(WSMsgType.TEXT, "last words")
        await client.transport.close(3000)

    asyncio.run(main())
    code, printed = server.end()
    assert code == 0
    assert printed.endswith("heard last words\nended with 3000\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_are_told_one_after_the_other_until_there_is_no_time(start: Start, folder: Path, workers: int) -> None:
    server = start(*arguments(workers, spread=1000), directory=folder)
    url = server.url()

    async def main() -> None:
        clients = [await Client.connect(url) for _ in range(workers + 1)]
        server.signal(signal.SIGTERM)
        waiting = {client.close_code for client in clients}
        for _ in {client.process.result() for client in clients}:
            # Each process begins with one of its own at once.
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for other in list(done)[1:]:
                waiting.add(other)
        told = [client for client in clients if client.close_code.done()]
        assert [client.close_code.result() for client in told] == [1001] * len(told)
        left = [client for client in clients if client not in told]
        for client in left:
            await client.transport.measure_roundtrip_time(1)
        assert left
        server.signal(signal.SIGTERM)
        for client in clients:
            await client.transport.wait_disconnected()
        assert [client.transport.close_code for client in left] == [1006] * len(left)

    asyncio.run(main())
    assert server.end()[0] == 128 + signal.SIGTERM


def test_a_client_that_does_not_answer_has_its_time(start: Start, folder: Path) -> None:
    server = start(*arguments(2, timeout=0.1), directory=folder)
    url = server.url()

    async def main() -> None:
        client = await Client.connect(url)
        server.signal(signal.SIGTERM)
        await client.transport.wait_disconnected()
        assert await client.close_code == 1001

    asyncio.run(main())
    assert server.end() == (0, "ended with 1006\n")


def test_a_worker_that_hangs_is_killed(start: Start, folder: Path) -> None:
    server = start(*arguments(2, timeout=0.1), directory=folder, module="tests.cli.impatient")
    url = server.url()

    async def main() -> int:
        client = await Client.connect(url)
        client.transport.send(WSMsgType.TEXT, "hang")
        server.wait_for("heard hang\n")
        server.signal(signal.SIGTERM)
        await client.transport.wait_disconnected()
        assert client.transport.close_code == 1006
        return client.process.result()

    process = asyncio.run(main())
    assert server.end() == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_worker_that_is_told_twice_takes_its_time(start: Start, folder: Path) -> None:
    """Service managers signal every process of a service, and the parent passes it on."""
    server = start(*arguments(2), directory=folder)
    url = server.url()

    async def main() -> None:
        client = await Client.connect(url)
        server.signal(signal.SIGTERM)
        assert await client.close_code == 1001
        os.kill(client.process.result(), signal.SIGTERM)
        await asyncio.sleep(PROMPT)
        await client.transport.close(3000)

    asyncio.run(main())
    assert server.end() == (0, "ended with 3000\n")


def test_clients_of_workers_that_are_replaced_are_told_to_come_back(start: Start, folder: Path) -> None:
    server = start(*arguments(2), directory=folder)
    url = server.url()

    async def main() -> None:
        client = await Client.connect(url)
        server.signal(signal.SIGHUP)
        assert await client.close_code == 1012
        # What ends the server meanwhile leaves them their time.
        server.signal(signal.SIGTERM)
        await asyncio.sleep(PROMPT)
        await client.transport.close(3000)

    asyncio.run(main())
    assert server.end() == (0, "ended with 3000\n")
