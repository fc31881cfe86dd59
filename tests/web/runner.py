"""An application in a process of its own, to be stopped by signals: python -m tests.web.runner [option=value ...]"""

from __future__ import annotations

import asyncio
import sys

from picows.web import ASyncApp, Route, WebSocket, WebSocketDisconnect


async def wait(ws: WebSocket) -> None:
    await ws.connect()
    await ws.send(type(asyncio.get_running_loop()).__module__)
    try:
        await ws.receive()
    except WebSocketDisconnect as error:
        await asyncio.sleep(0.05)  # what is done behind the end is waited for
        print(f"the handler saw {error.code}", flush=True)


async def stay(ws: WebSocket) -> None:
    await ws.connect()
    await ws.send("here")
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        print("the handler was cancelled", flush=True)
        raise


app = ASyncApp([Route("/", wait), Route("/stay", stay), Route("/", "GET", lambda: "page")])

if __name__ == "__main__":
    if "impatient" in sys.argv:
        from picows.web import serving

        serving.HANDLER_TIMEOUT = 0.1
    use_uvloop = {"uvloop": True, "asyncio": False}.get(sys.argv[1])
    app.run(port=0, use_uvloop=use_uvloop)
