"""An ASGI application with WebSockets under uvicorn, on the WebSocket class of picows.

The application is a Starlette one; it is the same on uvicorn's own classes. From the command line:

    uvicorn examples.asgi_server:app --ws picows.uvicorn:PicowsProtocol
"""

from __future__ import annotations

import argparse

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket


async def shout(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message.upper())


app = Starlette(routes=[WebSocketRoute("/", shout)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one; it is printed")
    port = parser.parse_args().port
    uvicorn.run(app, port=port, ws="picows.uvicorn:PicowsProtocol")


if __name__ == "__main__":
    main()
