"""A chat with rooms. The page, examples/web_chat.html, comes from the same port.

$ python -m examples.web_chat        # or: uvicorn examples.web_chat:app
"""

import asyncio
import sys
from pathlib import Path

from picows.web import ASyncApp, Route, WebSocket

PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
rooms: dict[str, set[WebSocket]] = {}


async def chat(ws: WebSocket, room: str) -> None:
    await ws.connect()
    rooms.setdefault(room, set()).add(ws)
    try:
        while True:
            message = await ws.receive_json()
            await asyncio.gather(*(member.send_json(message) for member in rooms[room]), return_exceptions=True)
    finally:
        rooms[room].remove(ws)
        if not rooms[room]:
            del rooms[room]


app = ASyncApp([Route("/", "GET", lambda: PAGE), Route("/rooms/{room}", chat)])

if __name__ == "__main__":
    app.run(port=int(sys.argv[1]) if sys.argv[1:] else 8000)
