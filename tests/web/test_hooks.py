"""Hooks: when they are called, in which order, and with what."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from picows.web import ASGIScope, ASyncApp, Route, WebSocket, WebSocketProtocolError, WSUpgradeResponse
from tests.web.places import Place, closed, over_both_places


def noting(name: str, notes: list[str]) -> type:
    """A class of hooks that notes what is called, and in which state the WebSocket is."""

    class Hook:
        async def on_request(self, ws: WebSocket) -> None:
            self.path = ws.path_params["path"]
            assert ws.connecting
            notes.append(f"{name} request")

        async def on_response(self, ws: WebSocket) -> None:
            assert ws.connected
            notes.append(f"{name} response {self.path}")

    return Hook


@over_both_places
def test_a_class_is_made_anew_for_each_request(place: Place) -> None:
    """Of an object there is one."""
    counts: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self.count = 0

        def on_request(self) -> None:
            self.count += 1
            counts.append(self.count)

    async def test() -> None:
        app = ASyncApp([Route("/", "GET", lambda: "")], event_hooks=[Counting, Counting()])
        async with place.serve(app) as served:
            for _ in range(2):
                await served.get()

    place.run(test())
    assert counts == [1, 1, 1, 2]


@over_both_places
def test_those_of_the_response_are_called_in_reverse_order(place: Place) -> None:
    notes: list[str] = []

    class Plain:
        def on_request(self) -> None:
            notes.append("plain request")

    async def handler(ws: WebSocket) -> None:
        notes.append("handler")
        await ws.connect()

    async def test() -> None:
        hooks = [noting("a", notes), Plain(), noting("b", notes)()]
        async with place.serve(ASyncApp([Route("/{path}", handler)], event_hooks=hooks)) as served:
            for path in ("/x", "/y"):
                async with served.connect(path) as client:
                    assert await closed(client) == (1000, "")

    place.run(test())
    first = ["a request", "plain request", "b request", "handler", "b response x", "a response x"]
    assert notes[:6] == first
    assert notes[6:] == [note.replace(" x", " y") for note in first]


@over_both_places
def test_a_hook_that_rejects_keeps_the_handler_away(place: Place) -> None:
    notes: list[str] = []

    class Reject:
        async def on_request(self, ws: WebSocket) -> None:
            await ws.connect(close=True)

    async def handler(ws: WebSocket) -> None:
        notes.append("handler")

    async def test() -> None:
        app = ASyncApp([Route("/{path}", handler)], event_hooks=[Reject])
        async with place.serve(app) as served:
            assert (await served.rejected("/x"))[0] == 403

    place.run(test())
    assert notes == []


@over_both_places
def test_a_hook_that_refuses_keeps_the_others_away(place: Place) -> None:
    notes: list[str] = []

    class Refuse:
        def on_request(self) -> None:
            raise WebSocketProtocolError(detail="not you")

    async def handler(ws: WebSocket) -> None:
        notes.append("handler")

    async def test() -> None:
        app = ASyncApp([Route("/{path}", handler)], event_hooks=[Refuse, noting("a", notes)])
        async with place.serve(app) as served:
            assert await served.rejected("/x") == (403, b"not you")

    place.run(test())
    assert notes == []


@over_both_places
def test_hooks_that_raise(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    class Before:
        def on_request(self, scope: ASGIScope) -> None:
            if scope["path"] == "/before":
                raise ZeroDivisionError

    class After:
        def on_response(self) -> None:
            raise ZeroDivisionError

    async def handler(ws: WebSocket) -> None:
        await ws.connect()

    async def test() -> None:
        app = ASyncApp([Route("/{path}", handler)], event_hooks=[Before, After])
        async with place.serve(app) as served:
            assert (await served.rejected("/before"))[0] == 500
            async with served.connect("/after") as client:
                assert await closed(client) == (1011, "")

    place.run(test())
    records = [record for record in caplog.records if record.name == "picows.web"]
    assert [record.levelno for record in records] == [logging.ERROR] * 2


@over_both_places
def test_those_that_ask_for_a_websocket_are_not_called_for_pages(place: Place) -> None:
    """And those that ask for a response are called for nothing else."""
    called: list[Any] = []

    class Hook:
        def on_request(self, scope: ASGIScope) -> None:
            called.append(scope["type"])

        def on_response(self, response: WSUpgradeResponse) -> None:
            called.append(int(response.status))
            response.headers["X-Hook"] = "was here"

    async def handler(ws: WebSocket) -> None:
        await ws.connect()

    async def test() -> None:
        hooks = [Hook, noting("a", called)]
        async with place.serve(ASyncApp([Route("/{path}", handler), Route("/", "GET", lambda: "")], event_hooks=hooks)) as served:
            assert (await served.get())[1]["x-hook"] == "was here"
            assert called == ["http", 200]
            async with served.connect("/x") as client:
                await closed(client)
            assert called[2:] == ["websocket", "a request", "a response x"]

    place.run(test())
