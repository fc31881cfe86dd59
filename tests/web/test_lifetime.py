"""A connection that has ended leaves nothing behind, without the cycle collector."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from picows.web import ASGIScope, ASyncApp, Route, WebSocket, WebSocketDisconnect, WSUpgradeRequest
from tests.connection.lifetimes import Watch, without_cycle_collector
from tests.web.places import Place, closed, over_own_networks


class Hook:
    def on_request(self, ws: WebSocket, scope: ASGIScope) -> None: ...


@over_own_networks
@pytest.mark.parametrize("end", ["returns", "raises", "is left", "rejects"])
def test_all_of_it_is_freed(place: Place, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What captures log records for pytest keeps them, with their tracebacks.
    monkeypatch.setattr(logging.getLogger("picows.web"), "disabled", True)

    async def handler(ws: WebSocket, request: WSUpgradeRequest) -> None:
        watch.add(ws)
        ws.state.hook = Hook()
        watch.add(ws.state.hook)
        if end == "rejects":
            await ws.close()
            return
        await ws.connect()
        watch.add(ws._channel._stream)  # type: ignore[attr-defined]
        watch.add(ws._channel._stream.transport)  # type: ignore[attr-defined]
        await ws.send("hello")
        if end == "is left":
            with pytest.raises(WebSocketDisconnect):
                await ws.receive()
        if end == "raises":
            raise ZeroDivisionError

    watch: Any = Watch()

    async def test() -> None:
        async with place.serve(ASyncApp([Route("/", handler)], event_hooks=[Hook])) as served:
            if end == "rejects":
                await served.rejected()
            else:
                async with served.connect() as client:
                    await client.recv()
                    if end != "is left":
                        await closed(client)
            await watch.all_gone()

    with without_cycle_collector():
        place.run(test())
