"""Topics of several processes on one port, joined by a broker that stores what was missed.

Clients send lines: "subscribe TOPIC", "subscribe TOPIC POSITION" for what was published since, "publish TOPIC TEXT". They
receive "TOPIC POSITION TEXT", and remember the position for when they come back.

SIGHUP restarts the workers one by one: the clients of each are told to come back, and come to another meanwhile.

python -m examples.topics_workers --workers 4 --broker redis://localhost
python -m examples.topics_workers --workers 4 --broker nats://localhost
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys

from picows import (
    WSBrokeredTopics,
    WSBrokerError,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSPositionError,
    WSTopics,
    WSTransport,
    ws_create_server,
)
from picows.brokers import WSBroker


def make_broker(url: str) -> WSBroker:
    if url.startswith("redis"):
        from picows.brokers.redis import RedisBroker

        return RedisBroker(url, history=10_000)
    from picows.brokers.nats import NATSBroker

    return NATSBroker(url, stream="example")


def with_position(topic: str, position: str, message: bytes) -> bytes:
    return f"{topic} {position} ".encode() + message


class Subscriber(WSListener):
    def __init__(self, topics: WSBrokeredTopics) -> None:
        self._topics = topics
        self._tasks: set[asyncio.Task[None]] = set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            task = asyncio.create_task(self._do(transport, frame.get_payload_as_utf8_text()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do(self, transport: WSTransport, line: str) -> None:
        command, topic, rest = (line + "  ").split(" ", 2)
        try:
            if command == "subscribe":
                position = await self._topics.subscribe(transport, topic, since=rest.strip() or None)
                transport.send(WSMsgType.TEXT, f"subscribed {topic} {position}")
            elif command == "publish":
                await self._topics.publish(topic, WSMsgType.TEXT, rest.strip(), timeout=5)
        except (ValueError, WSPositionError, WSBrokerError) as error:
            transport.send(WSMsgType.TEXT, f"error: {error}")


async def work(host: str, port: int, broker: str) -> None:
    """What one worker does until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with WSTopics(make_broker(broker), stamp=with_position) as topics:
        server = await ws_create_server(lambda request: Subscriber(topics), host, port, reuse_port=True)
        print("Working", flush=True)
        await stop.wait()
        report = await server.shutdown(WSCloseCode.SERVICE_RESTART, "come back", spread=1)
        print(f"Stopped, {report.closed} clients were told, {report.aborted} did not answer", flush=True)


async def start_worker(args: argparse.Namespace, port: int) -> asyncio.subprocess.Process:
    """A process; it takes connections when this returns."""
    command = ["-m", "examples.topics_workers", "--work", "--host", args.host, "--port", str(port), "--broker", args.broker]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    print((await process.stdout.readline()).decode().strip(), process.pid)
    return process


async def stop_worker(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    rest, _ = await process.communicate()
    print(rest.decode().strip())


async def supervise(args: argparse.Namespace) -> None:
    stop, restart = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, restart.set)
    with socket.socket() as sock:
        # Keeps the port for the workers, and takes no connection itself.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((args.host, args.port))
        port = sock.getsockname()[1]
        workers = [await start_worker(args, port) for _ in range(args.workers)]
        print(f"Listening on ws://{args.host}:{port}/")
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            restarting = asyncio.create_task(restart.wait())
            await asyncio.wait([stopping, restarting], return_when=asyncio.FIRST_COMPLETED)
            restarting.cancel()
            if restart.is_set() and not stop.is_set():
                restart.clear()
                for at, old in enumerate(workers):
                    workers[at] = await start_worker(args, port)  # first the new one
                    await stop_worker(old)
                print("Restarted")
        await asyncio.gather(*map(stop_worker, workers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    parser.add_argument("--broker", default="redis://localhost", help="redis:// or nats://")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    asyncio.run(work(args.host, args.port, args.broker) if args.work else supervise(args))
