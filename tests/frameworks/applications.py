"""The same echo in Litestar, Quart and Django Channels, for uvicorn programs."""

from __future__ import annotations

from typing import Any


def litestar_app() -> Any:
    from litestar import Litestar, WebSocket, websocket

    @websocket("/")
    async def echo(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept(headers={"framework": "litestar"})
        async for message in socket.iter_data():
            await socket.send_text(message)

    echo.fn.__annotations__["socket"] = WebSocket
    return Litestar([echo])


def quart_app() -> Any:
    from quart import Quart, websocket

    app = Quart(__name__)

    @app.websocket("/")
    async def echo() -> None:
        await websocket.accept(headers={"framework": "quart"})
        while True:
            await websocket.send(await websocket.receive())

    return app


def channels_app() -> Any:
    import django
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.conf import settings
    from django.urls import path

    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.configure(SECRET_KEY="of a test", ALLOWED_HOSTS=["*"], INSTALLED_APPS=["channels"], CHANNEL_LAYERS=layers)
    django.setup()

    class Echo(AsyncWebsocketConsumer):  # type: ignore[misc]
        async def connect(self) -> None:
            await self.channel_layer.group_add("all", self.channel_name)
            await self.accept()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            # By way of the channel layer, so that the consumer waits for two things at a time.
            await self.channel_layer.group_send("all", {"type": "said", "text": text_data})

        async def said(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

        async def disconnect(self, code: int) -> None:
            await self.channel_layer.group_discard("all", self.channel_name)

    return ProtocolTypeRouter({"websocket": URLRouter([path("", Echo.as_asgi())])})
