"""A server for behind a load balancer: a health check on its port, and a goodbye to each client when it stops.

$ python -m examples.health_check 9001
"""

import asyncio
import signal
import sys

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server
from picows import WSUpgradeResponse as Response
from picows import WSUpgradeResponseWithListener as Answer


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame)


def accept(request: WSUpgradeRequest):
    if request.target_path == "/health":
        return Answer(Response.create_ok_response(b"alive\n"), None)
    return Echo() if request.target_path == "/ws" else None  # 404


async def main(port: int = 9001, host: str = "127.0.0.1", spread: float = 10) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    server = await ws_create_server(accept, host, port, assemble_messages=True, enable_auto_ping=True)
    print("Listening on ws://{}:{}/ws".format(*server.sockets[0].getsockname()), flush=True)
    await stop.wait()
    print(await server.shutdown(1001, "restart", spread=spread))


if __name__ == "__main__":
    asyncio.run(main(*(convert(text) for convert, text in zip((int, str, float), sys.argv[1:]))))
