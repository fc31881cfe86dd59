"""The examples of the document that describes this interface do what it says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from picows.web import ASyncApp, Route, WebSocket
from tests.web import documented
from tests.web.places import Place, closed, over_every_place

pytestmark = over_every_place


async def received(client: Any) -> list[Any]:
    """All messages to the closing with 1000."""
    messages = [message async for message in client]
    assert client.close_code == 1000
    return messages


@pytest.mark.parametrize("name", ["websocket_helloworld", "websocket_helloworld_2"])
def test_hello_world(place: Place, name: str) -> None:
    async def test() -> None:
        async with place.handler(getattr(documented, name)) as served, served.connect() as client:
            assert await received(client) == ["Hello World!"] * 100

    place.run(test())


def test_json(place: Place) -> None:
    async def test() -> None:
        async with place.handler(documented.websocket_helloworld_msg) as served, served.connect() as client:
            messages = [json.loads(message) for message in await received(client)]
            assert messages == [{"index": idx, "text": "Hello World!"} for idx in range(100)]

    place.run(test())


@pytest.mark.parametrize(
    ("name", "pong"), [("websocket_pingpong_forever", "pong"), ("websocket_pingpong_forever_2", '{"paddle":"pong"}')]
)
def test_ping_pong_until_the_client_goes_away(place: Place, name: str, pong: str) -> None:
    async def test() -> None:
        over = asyncio.Event()

        async def handler(ws: WebSocket) -> None:
            await getattr(documented, name)(ws)
            over.set()

        async with place.handler(handler) as served:
            async with served.connect() as client:
                for _ in range(3):
                    await client.send('{"paddle": "ping"}')
                    assert await client.recv() == pong
            await over.wait()

    place.run(test())


def test_forever_ends_with_the_client(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # A second is long for a test; how long it rests between two messages is not the point.
    rest = asyncio.sleep
    monkeypatch.setattr(documented.asyncio, "sleep", lambda seconds: rest(seconds / 1000))

    async def test() -> None:
        over = asyncio.Event()

        async def handler(ws: WebSocket) -> None:
            await documented.websocket_helloworld_forever(ws)
            assert ws.closed
            over.set()

        async with place.handler(handler) as served:
            async with served.connect() as client:
                for _ in range(3):
                    assert json.loads(await client.recv())["text"] == "Hello World!"
            await over.wait()

    place.run(test())


async def say_hello(ws: WebSocket) -> None:
    await ws.send("Hello World!")


def test_a_hook_connects(place: Place) -> None:
    async def test() -> None:
        app = ASyncApp([Route("/", say_hello)], event_hooks=[documented.WebSocketEvents])
        async with place.serve(app) as served, served.connect() as client:
            assert await received(client) == ["Hello World!"]

    place.run(test())


def test_a_hook_requires_a_subprotocol(place: Place) -> None:
    name = "my.protocol.example.io"

    async def test() -> None:
        app = ASyncApp([Route("/", say_hello)], event_hooks=[documented.WebSocketEvents_2])
        async with place.serve(app) as served:
            assert await served.rejected() == (403, f"Protocol {name} is required".encode())
            assert (await served.rejected(subprotocols=["other"]))[0] == 403
            # It is not chosen: a client that insists on its choice would refuse that.
            async with served.connect(subprotocols=["other", name]) as client:
                assert await received(client) == ["Hello World!"]

    place.run(test())


def test_a_hook_says_goodbye(place: Place) -> None:
    async def test() -> None:
        app = ASyncApp([Route("/", say_hello)], event_hooks=[documented.WebSocketEvents_3(), documented.WebSocketEvents])
        async with place.serve(app) as served, served.connect() as client:
            hello, goodbye = await received(client)
            assert (hello, json.loads(goodbye)) == ("Hello World!", {"status": "ok", "message": "Have a nice Day!"})

    place.run(test())


def test_a_hook_sees_that_the_handler_has_closed(place: Place) -> None:
    async def leave(ws: WebSocket) -> None:
        await ws.connect()
        await ws.close(4000)

    async def test() -> None:
        app = ASyncApp([Route("/", leave)], event_hooks=[documented.WebSocketEvents_3])
        async with place.serve(app) as served, served.connect() as client:
            assert await closed(client) == (4000, "")

    place.run(test())
