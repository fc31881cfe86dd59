"""JSON by whichever module is installed, or by functions of the handler's."""

from __future__ import annotations

import json
import sys

import pytest

from picows.web import WebSocket, WebSocketProtocolError, jsons, status
from tests.web.places import Place, closed, over_both_places

VALUES = [None, True, -5, 1.5, "\u20ac\U0001f600", [1, [2]], {"a": {"b": ["c"]}}]

# The modules that may be there, the first of them is used.
MODULES = ["msgspec", "orjson", "json"]


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        for module in [name, *(loaded for loaded in sys.modules if loaded.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, module, None)
    loads, dumps = jsons.functions()
    monkeypatch.setattr(jsons, "loads", loads)
    monkeypatch.setattr(jsons, "dumps", dumps)


async def echo(ws: WebSocket) -> None:
    await ws.connect()
    while True:
        await ws.send_json(await ws.receive_json())


@over_both_places
@pytest.mark.parametrize("module", MODULES)
def test_values_come_and_go(place: Place, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent as text, received as text or as bytes."""
    if module != "json":
        pytest.importorskip(module)
    without(monkeypatch, *MODULES[: MODULES.index(module)])
    assert jsons.dumps.__module__.partition(".")[0] in (module, "builtins")

    async def test() -> None:
        async with place.handler(echo) as served, served.connect() as client:
            for value in VALUES:
                for message in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode()):
                    await client.send(message)
                    answer = await client.recv()
                    assert answer == json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    place.run(test())


@over_both_places
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("message", ["{", "nonsense", "", b"\xff"])
def test_what_is_no_json_closes(
    place: Place, module: str, message: str | bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the client's fault, so nothing is logged."""
    if module != "json":
        pytest.importorskip(module)
    without(monkeypatch, *MODULES[: MODULES.index(module)])

    async def test() -> None:
        async with place.handler(echo) as served, served.connect() as client:
            await client.send(message)
            code, reason = await closed(client)
            assert code == status.WS_1007_INVALID_DATA
            assert reason.startswith("the message is no JSON: ")

    place.run(test())
    assert not [record for record in caplog.records if record.name.startswith("picows")]


@over_both_places
def test_a_handler_may_catch_it(place: Place) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.connect()
        try:
            await ws.receive_json()
        except WebSocketProtocolError as error:
            await ws.send(error.detail)

    async def test() -> None:
        async with place.handler(handler) as served, served.connect() as client:
            await client.send("{")
            assert "no JSON" in str(await client.recv())
            assert await closed(client) == (1000, "")

    place.run(test())


@over_both_places
def test_functions_of_the_handlers(place: Place) -> None:
    """What they raise is not changed; `dumps` may return str or bytes, and text is sent."""

    async def handler(ws: WebSocket) -> None:
        await ws.connect()
        assert await ws.receive_json(loads=lambda message: ["loaded", message]) == ["loaded", "x"]
        with pytest.raises(ZeroDivisionError):
            await ws.receive_json(loads=lambda message: 1 // 0)
        await ws.send_json({1, 2}, dumps=lambda data: f"{len(data)} \u20ac")
        await ws.send_json({1, 2}, dumps=lambda data: f"{len(data)} \u20ac".encode())

    async def test() -> None:
        async with place.handler(handler) as served, served.connect() as client:
            await client.send("x")
            await client.send("y")
            assert [await client.recv() for _ in range(2)] == ["2 \u20ac"] * 2
            assert await closed(client) == (1000, "")

    place.run(test())


def test_what_cannot_be_encoded_is_the_handlers_fault(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.connect()
        await ws.send_json(object())

    async def test() -> None:
        async with place.handler(handler) as served, served.connect() as client:
            assert await closed(client) == (1011, "")

    place.run(test())
    assert any(record.name == "picows.web" for record in caplog.records)


def test_one_that_is_missing_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "msgspec", "orjson")
    loads, dumps = jsons.functions()
    assert (loads, dumps.__module__) == (json.loads, "json.encoder")
