"""A Starlette and a FastAPI application for uvicorn programs."""

from __future__ import annotations

import os
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket


async def echo(websocket: WebSocket) -> None:
    subprotocols = websocket.scope["subprotocols"] or [None]
    await websocket.accept(subprotocols[0], headers=[(b"pid", str(os.getpid()).encode())])
    async for message in websocket.iter_text():
        await websocket.send_text(message)


async def cookie(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({"cookies": websocket.cookies, "query": dict(websocket.query_params)})
    await websocket.close(4000, "enough")


async def denied(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("not you", 401, {"WWW-Authenticate": "Basic"}))


starlette = Starlette(routes=[WebSocketRoute("/", echo), WebSocketRoute("/cookie", cookie), WebSocketRoute("/denied", denied)])


def fastapi() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.websocket("/{room}")
    async def room(websocket: WebSocket, room: int, name: str = "nobody") -> None:
        await websocket.accept()
        async for message in websocket.iter_json():
            await websocket.send_json({"room": room, "name": name, "said": message})

    return app
