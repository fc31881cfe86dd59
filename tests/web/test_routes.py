"""Which handler a path belongs to, and pages."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

import pytest

from picows.web import ASyncApp, Route, WebSocket, WebSocketProtocolError, WSUpgradeRequest, WSUpgradeResponse
from tests.web.places import Place, over_both_places, over_every_place, over_own_loops


async def echo(ws: WebSocket) -> None:
    await ws.connect()


def teller(name: str) -> Any:
    async def tell(ws: WebSocket) -> None:
        await ws.connect()
        await ws.send_json([name, ws.path_params])

    return tell


@over_both_places
def test_a_path_finds_its_handler(place: Place) -> None:
    """One without parameters first, then in their order; segments are whole, decoded, and not empty."""
    paths = ["/", "/a.c", "/r/{name}", "/r/{n:int}", "/r/fixed", "/r/{name}/{n:int}", "/r/{name}/x{n}y", "/f/{name}.c"]
    asked = {
        "/": ["/", {}],
        "/a.c": ["/a.c", {}],
        "/r/fixed": ["/r/fixed", {}],
        "/r/12": ["/r/{name}", {"name": "12"}],
        "/r/%C3%BC%20?x=/r/": ["/r/{name}", {"name": "\u00fc "}],
        "/r/a/-12": ["/r/{name}/{n:int}", {"name": "a", "n": -12}],
        "/r/a/x1y": ["/r/{name}/x{n}y", {"name": "a", "n": "1"}],
        "/f/a.b.c": ["/f/{name}.c", {"name": "a.b"}],
        "/r/a/xxyy": ["/r/{name}/x{n}y", {"name": "a", "n": "xy"}],
    }

    async def test() -> None:
        app = ASyncApp([Route(path, teller(path)) for path in paths])
        async with place.serve(app) as served:
            for path, told in asked.items():
                async with served.connect(path) as client:
                    assert json.loads(await client.recv()) == told
            for path in ("/abc", "/r", "/r/", "/r//1", "/r/a/1.5", "/r/a/" + "9" * 19, "/r/fixed/", "/a.c/", "/f/a-c"):
                assert await served.rejected(path) == (404, b"404 Not Found")
            assert (await served.get("/nothing"))[::2] == (404, b"404 Not Found")

    place.run(test())


@over_every_place
def test_a_path_with_another_method(place: Place) -> None:
    async def test() -> None:
        app = ASyncApp([Route("/page", "GET", lambda: ""), Route("/ws/{name}", "WEBSOCKET", echo)])
        async with place.serve(app) as served:
            status, body = await served.rejected("/page")
            assert (status, b"no WebSocket" in body) == (405, True)
            status, headers, body = await served.get("/ws/a")
            assert (status, headers["allow"], b"upgrade" in body) == (405, "", True)

    place.run(test())


@over_own_loops
def test_one_path_has_a_page_and_a_websocket(place: Place) -> None:
    async def test() -> None:
        app = ASyncApp([Route("/", "GET", lambda: "page"), Route("/", echo)])
        async with place.serve(app) as served:
            assert (await served.get())[2] == b"page"
            async with served.connect():
                pass

    place.run(test())


@over_every_place
def test_pages(place: Place) -> None:
    """What a handler returns says what is sent."""

    async def wait(request: WSUpgradeRequest, name: str, n: int) -> dict[str, Any]:
        return {"path": request.path.decode(), "name": name, "n": n, "host": request.headers["host"]}

    handlers = {
        "/html": lambda: "<p>\u20ac</p>",
        "/bytes": lambda: b"\x00\x01",
        "/list": lambda: [1, {"a": None}],
        "/response": lambda: WSUpgradeResponse.create_redirect_response(302, "/html"),
        "/made": lambda: WSUpgradeResponse.create_ok_response(b"x", {"Content-Type": "text/css"}),
        "/empty": lambda: WSUpgradeResponse(HTTPStatus.NO_CONTENT),
        "/json/{name}/{n:int}": wait,
    }

    async def test() -> None:
        app = ASyncApp([Route(path, "GET", handler) for path, handler in handlers.items()])
        async with place.serve(app) as served:

            async def kind_and_body(path: str) -> tuple[str, bytes]:
                status, headers, body = await served.get(path)
                assert status == 200
                assert int(headers["content-length"]) == len(body)
                return headers["content-type"], body

            assert await kind_and_body("/html") == ("text/html; charset=utf-8", "<p>\u20ac</p>".encode())
            assert await kind_and_body("/bytes") == ("application/octet-stream", b"\x00\x01")
            assert await kind_and_body("/list") == ("application/json", b'[1,{"a":null}]')
            assert await kind_and_body("/made") == ("text/css", b"x")
            _, body = await kind_and_body("/json/a%20b/5?x=1")
            assert json.loads(body) == {"path": "/json/a%20b/5?x=1", "name": "a b", "n": 5, "host": "localhost"}
            status, headers, _ = await served.get("/response")
            assert (status, headers["location"]) == (302, "/html")
            assert (await served.get("/empty"))[::2] == (204, b"")
            assert (await served.get("/html", "POST"))[0] == 405
            status, headers, body = await served.get("/html", "HEAD")
            assert (status, headers["content-length"], body) == (200, "10", b"")
            status, headers, body = await served.get("/html", "OPTIONS")
            assert (status, headers["allow"], body) == (204, "GET, HEAD, OPTIONS", b"")

    place.run(test())


@over_both_places
def test_pages_that_fail(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> str:
        raise WebSocketProtocolError(detail="not you")

    def fail() -> str:
        raise ZeroDivisionError

    async def test() -> None:
        routes = [Route("/none", "GET", lambda: None, "nothing"), Route("/fail", "GET", fail), Route("/refuse", "GET", refuse)]
        async with place.serve(ASyncApp(routes)) as served:
            assert (await served.get("/refuse"))[::2] == (403, b"not you")
            assert not [record for record in caplog.records if record.name.startswith("picows")]
            for path in ("/none", "/fail"):
                assert (await served.get(path))[::2] == (500, b"500 Internal Server Error")

    place.run(test())
    nothing, failed = (record for record in caplog.records if record.name == "picows.web")
    assert nothing.levelno == failed.levelno == logging.ERROR
    assert "the handler nothing of '/none'" in nothing.message
    assert nothing.exc_info
    assert "returned a NoneType, expected str" in str(nothing.exc_info[1])
    assert failed.exc_info
    assert failed.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        (("/", "POST", echo), ValueError, "'POST'"),
        (("/", "GET"), TypeError, "'GET'"),
        (("/", None), TypeError, "None"),
        (("/", "GET", "echo"), TypeError, "'echo'"),
        (("a", echo), ValueError, "'a'"),
        ((b"/", echo), TypeError, "b'/'"),
        (("/{a", echo), ValueError, "brace"),
        (("/a}", echo), ValueError, "brace"),
        (("/{}", echo), ValueError, "needs a name"),
        (("/{a b}", echo), ValueError, "needs a name"),
        (("/{a}/{a:int}", echo), ValueError, "needs a name of its own"),
        (("/{a:float}", echo), ValueError, r"must be \{a:str\} or \{a:int\}"),
    ],
)
def test_wrong_routes(arguments: tuple[Any, ...], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        Route(*arguments)


def test_routes_tell_what_they_are() -> None:
    assert (Route("/", echo).name, Route("/", echo).method) == ("echo", "WEBSOCKET")
    assert repr(Route("/{a:int}", "GET", echo, name="other")) == "<Route GET '/{a:int}' other>"


def test_wrong_applications() -> None:
    with pytest.raises(ValueError, match="two routes for WEBSOCKET '/'"):
        ASyncApp([Route("/", echo), Route("/", "WEBSOCKET", echo)])
    with pytest.raises(TypeError, match="Route objects, got"):
        ASyncApp([("/", echo)])  # type: ignore[list-item]
