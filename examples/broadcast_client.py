"""A client of the broadcast server: says one thing, listens to a few, and leaves.

$ python -m examples.broadcast_client --say "Hello from Alice" --listen 3
"""

from __future__ import annotations

import argparse
import asyncio

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class Member(WSListener):
    def __init__(self, say: str, listen: int) -> None:
        self._say = say
        self._listen = listen

    def on_ws_connected(self, transport: WSTransport) -> None:
        print("Joined")
        transport.send(WSMsgType.TEXT, self._say)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT and self._listen > 0:
            print(f"Heard: {frame.get_payload_as_utf8_text()}")
            self._listen -= 1
            if self._listen == 0:
                transport.send_close(WSCloseCode.OK)
                transport.disconnect()


async def main(url: str, say: str, listen: int) -> None:
    # The factory is called when the handshake is done, and makes this connection's listener.
    transport, _ = await ws_connect(lambda: Member(say, listen), url)
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    parser.add_argument("--say", default="Hello everybody")
    parser.add_argument("--listen", type=int, default=1, help="messages to hear, its own included")
    args = parser.parse_args()
    asyncio.run(main(args.url, args.say, args.listen))
