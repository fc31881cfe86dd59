"""The parameters of handlers and hooks are filled by annotation and by name; one that nothing fills is found at once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from picows.web import ASGIScope, ASyncApp, Route, WebSocket, WSUpgradeRequest, WSUpgradeResponse
from tests.web.places import Place, over_both_places, over_every_place, passing_on

if TYPE_CHECKING:
    from picows.web import WebSocket as ForTypesOnly


async def everything(
    n: int, scope: ASGIScope, room: str, request: WSUpgradeRequest, ws: WebSocket, *rest: Any, more: int = 3, **others: Any
) -> None:
    await ws.connect()
    assert not rest
    assert not others
    await ws.send_json([n, room, scope["type"], scope["path"], request.path.decode(), more])


async def without_annotations(room, n, *, stream: WebSocket):  # type: ignore[no-untyped-def]
    await everything(n, ASGIScope(type="websocket", path=f"/{room}/{n}"), room, WSUpgradeRequest(b"GET", b"/a/5?q"), stream)


class Methods:
    async def method(self, ws: WebSocket, n: int, room: str, request: WSUpgradeRequest) -> None:
        await everything(n, ASGIScope(type="websocket", path="/a/5"), room, request, ws)

    __call__ = method


decorated = passing_on(everything)


@over_both_places
@pytest.mark.parametrize(
    "handler",
    [everything, without_annotations, Methods().method, Methods(), functools.partial(everything, more=3), decorated],
    ids=["function", "without annotations", "method", "object", "partial", "decorated"],
)
def test_parameters_are_filled(place: Place, handler: Any) -> None:
    async def test() -> None:
        async with place.handler(handler, "/{room}/{n:int}") as served, served.connect("/a/5?q") as client:
            assert await client.recv() == '[5,"a","websocket","/a/5","/a/5?q",3]'

    place.run(test())


@over_every_place
def test_the_scope_is_that_of_asgi(place: Place) -> None:
    seen: list[ASGIScope] = []

    async def look(ws: WebSocket, scope: ASGIScope) -> None:
        seen.append(scope)

    def page(scope: ASGIScope) -> str:
        seen.append(scope)
        return ""

    async def test() -> None:
        app = ASyncApp([Route("/{name}", look), Route("/{name}", "GET", page)])
        async with place.serve(app) as served:
            await served.rejected("/a%20b?q=%20", subprotocols=["a", "b"], additional_headers={"X-A": "\u00fc"})  # Latin-1
            assert (await served.get("/c"))[0] == 200
            ports.append(served.port)

    ports: list[int] = []
    place.run(test())
    ws, http = seen
    assert ws["server"] == ("127.0.0.1", ports[0])
    assert ws["client"][0] == "127.0.0.1"
    assert (ws["type"], ws["scheme"], ws["subprotocols"]) == ("websocket", "ws" + "s" * place.net.tls, ["a", "b"])
    assert (http["type"], http["scheme"], http["method"]) == ("http", "http" + "s" * place.net.tls, "GET")
    assert (ws["path"], ws["raw_path"], ws["query_string"]) == ("/a b", b"/a%20b", b"q=%20")
    assert (ws["http_version"], ws["root_path"], ws["asgi"]["version"]) == ("1.1", "", "3.0")
    # As the client has sent it: older ones of this make send UTF-8.
    assert dict(ws["headers"])[b"x-a"] in (b"\xfc", b"\xc3\xbc")


# -- what nothing fills --


def application(handler: Any, method: str = "WEBSOCKET") -> ASyncApp:
    return ASyncApp([Route("/{room}/{n:int}", method, handler)])


async def unknown_name(ws: WebSocket, rooms: str) -> None: ...
async def unknown_class(ws: WebSocket, other: dict) -> None: ...  # type: ignore[type-arg]
async def no_annotation(ws) -> None: ...  # type: ignore[no-untyped-def]
async def not_there(ws: ForTypesOnly) -> None: ...
async def wrong_type(ws: WebSocket, n: str) -> None: ...
async def positional_only(ws: WebSocket, /) -> None: ...
async def a_page_for_websockets(ws: WebSocket) -> None: ...


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (unknown_name, "the handler unknown_name of .*: nothing fills the parameter 'rooms', annotated str; .*path: room, n"),
        (unknown_class, "'other', annotated dict; there are the classes WebSocket, ASGIScope, WSUpgradeRequest"),
        (no_annotation, "'ws', which has no annotation"),
        (not_there, "'ws', whose annotation 'ForTypesOnly' cannot be evaluated"),
        (wrong_type, "the path fills the parameter 'n', annotated str, with int"),
        (positional_only, "'ws' must not be positional only"),
    ],
)
def test_it_is_told_when_the_application_is_made(handler: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        application(handler)


def test_a_page_has_no_websocket() -> None:
    with pytest.raises(TypeError, match="'ws', annotated WebSocket; there are the classes ASGIScope, WSUpgradeRequest, and"):
        application(a_page_for_websockets, "GET")


def test_hooks_are_looked_at_as_well() -> None:
    class NeedsAName:
        def on_request(self, room: str) -> None: ...

    class NeedsAResponse:
        def on_request(self, response: WSUpgradeResponse) -> None: ...

    class DoesNothing:
        def on_error(self) -> None: ...

    for hook, told in (
        (NeedsAName, r"the hook NeedsAName.on_request: nothing fills the parameter 'room'"),
        (NeedsAName(), r"the hook NeedsAName.on_request: nothing fills the parameter 'room'"),
        (NeedsAResponse, "'response', whose annotation|'response', annotated WSUpgradeResponse"),
        (DoesNothing, "needs a method on_request or on_response"),
    ):
        with pytest.raises(TypeError, match=told):
            ASyncApp([], event_hooks=[hook])
