"""The application as an ASGI server sees it: by events. What every server does is tested with uvicorn, in the other modules."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from picows.web import ASGIScope, ASyncApp, Route, WebSocket, WebSocketDisconnect, WebSocketProtocolError
from tests.web.places import Served, under_uvicorn

Event = MutableMapping[str, Any]

CONNECT = {"type": "websocket.connect"}
DENIAL = {"websocket.http.response": {}}


def scope(path: str = "/", kind: str = "websocket", **others: Any) -> dict[str, Any]:
    return {"type": kind, "path": path, "headers": [], **others}


def events(app: ASyncApp, given: dict[str, Any], *received: Event, gone_after: int | None = None) -> list[Event]:
    """What the application sends; `gone_after` so many of them the server says that the client has gone."""
    waiting = list(received)
    sent: list[Event] = []

    async def receive() -> Event:
        return waiting.pop(0)

    async def send(event: Event) -> None:
        if gone_after is not None and len(sent) >= gone_after:
            raise ConnectionResetError("the server's own words")
        sent.append(event)

    asyncio.run(app(given, receive, send))
    return sent


def app_of(handler: Any, path: str = "/") -> ASyncApp:
    return ASyncApp([Route(path, handler)])


async def echo(ws: WebSocket) -> None:
    await ws.connect()
    async for message in ws:
        await ws.send(message)


def test_a_conversation() -> None:
    """Servers may leave out what is empty, or say None."""
    sent = events(
        app_of(echo),
        scope(),
        CONNECT,
        {"type": "websocket.receive", "text": "text"},
        {"type": "websocket.receive", "text": None, "bytes": b"bytes"},
        {"type": "websocket.receive", "bytes": b""},
        {"type": "websocket.receive", "text": "", "bytes": None},
        {"type": "websocket.disconnect"},
    )
    accept, *echoed = sent
    assert accept == {"type": "websocket.accept", "subprotocol": None, "headers": []}
    assert echoed == [
        {"type": "websocket.send", "text": "text"},
        {"type": "websocket.send", "bytes": b"bytes"},
        {"type": "websocket.send", "bytes": b""},
        {"type": "websocket.send", "text": ""},
    ]


def test_lifespan() -> None:
    sent = events(app_of(echo), {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert [event["type"] for event in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_another_kind_of_connection_is_refused() -> None:
    with pytest.raises(ValueError, match="'telepathy'"):
        events(app_of(echo), {"type": "telepathy"})


async def refuse(ws: WebSocket) -> None:
    raise WebSocketProtocolError("not you")


@pytest.mark.parametrize(
    ("path", "status", "body"), [("/", 403, b"not you"), ("/nothing", 404, b"404 Not Found"), ("/fail", 500, b"500 Inter")]
)
def test_a_refusal_with_its_status_where_the_server_knows_how(path: str, status: int, body: bytes) -> None:
    app = ASyncApp([Route("/", refuse), Route("/fail", lambda: 1 // 0)])
    head, rest = events(app, scope(path, extensions=DENIAL), CONNECT)
    assert (head["type"], head["status"]) == ("websocket.http.response.start", status)
    assert (rest["type"], rest["body"][: len(body)]) == ("websocket.http.response.body", body)
    assert events(app, scope(path), CONNECT)[0]["type"] == "websocket.close"
    assert events(app, scope(path, extensions=None), CONNECT)[0]["type"] == "websocket.close"


def test_a_rejection_tells_the_server_its_code() -> None:
    async def reject(ws: WebSocket) -> None:
        await ws.connect(close=True, close_code=4001)

    assert events(app_of(reject), scope(extensions=DENIAL), CONNECT) == [{"type": "websocket.close", "code": 4001}]


def test_a_client_that_goes_while_it_is_sent_to() -> None:
    """What it has sent before is still received, and its close code told then."""
    seen: list[Any] = []

    async def handler(ws: WebSocket) -> None:
        await ws.connect()
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.send("lost")
        seen.append(caught.value.code)
        seen.append(ws.connected)
        seen.append(await ws.receive())
        for attempt in (ws.receive, lambda: ws.send("lost")):
            with pytest.raises(WebSocketDisconnect) as caught:
                await attempt()
            seen.append((caught.value.code, caught.value.reason))

    left = {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
    events(app_of(handler), scope(), CONNECT, {"type": "websocket.receive", "text": "x"}, left, gone_after=1)
    assert seen == [1006, False, "x", (4000, "bye"), (4000, "bye")]


@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_a_client_that_goes_before_the_answer(path: str) -> None:
    assert events(app_of(echo), scope(path), CONNECT, gone_after=0) == []


@pytest.mark.parametrize(
    ("path", "root_path", "route", "matched"),
    [
        ("/app/x", "/app", "/x", True),
        ("/app", "/app", "/", True),
        ("/app/x", "", "/x", False),
        # Not every server has the root in the path.
        ("/x", "/app", "/x", True),
        ("/apple/x", "/app", "/apple/x", True),
    ],
)
def test_a_mounted_application_sees_its_own_paths(path: str, root_path: str, route: str, matched: bool) -> None:
    sent = events(app_of(refuse, route), scope(path, root_path=root_path, extensions=DENIAL), CONNECT)
    assert sent[0]["status"] == (403 if matched else 404)


def test_it_is_mounted_in_another_application() -> None:
    applications = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")

    async def test() -> None:
        app = ASyncApp([Route("/echo", echo), Route("/", "GET", lambda: "page")])
        async with under_uvicorn(applications.Starlette(routes=[routing.Mount("/mounted", app=app)])) as port:
            served = Served(port, tls=False)
            async with served.connect("/mounted/echo") as client:
                await client.send("hello")
                assert await client.recv() == "hello"
            assert (await served.get("/mounted/"))[2] == b"page"
            assert (await served.rejected("/mounted/nothing"))[0] == 404

    asyncio.run(test())


def test_the_scope_is_the_servers() -> None:
    seen: list[Any] = []

    async def look(ws: WebSocket, given: ASGIScope) -> None:
        seen.extend([given["state"], ws.client, ws.query_params["q"], ws.headers["x-a"]])

    state = {"database": object()}
    others = {"state": state, "client": ["1.2.3.4", 5], "query_string": b"q=1", "headers": [(b"x-a", b"\xfc")]}
    events(app_of(look), {**scope(), **others}, CONNECT)
    assert seen == [state, ("1.2.3.4", 5), "1", "\udcfc"]


def test_a_head_of_a_page() -> None:
    app = ASyncApp([Route("/", "GET", lambda: "page")])
    head, _ = events(app, scope(kind="http", method="HEAD"))
    assert (head["status"], dict(head["headers"])[b"content-length"]) == (200, b"4")
    head, _ = events(app, scope(kind="http", method="PUT"))
    assert (head["status"], dict(head["headers"])[b"allow"]) == (405, b"GET, HEAD, OPTIONS")


def test_a_handler_that_is_cancelled_says_so() -> None:
    async def test() -> None:
        async def wait(ws: WebSocket) -> None:
            await ws.connect()
            waits.set()
            await ws.receive()

        async def receive() -> Event:
            return CONNECT if not waits.is_set() else await asyncio.get_running_loop().create_future()

        async def send(event: Event) -> None: ...

        waits = asyncio.Event()
        task = asyncio.ensure_future(app_of(wait)(scope(), receive, send))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(test())
