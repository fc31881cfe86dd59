"""A user's mistakes: mypy has to object to each line that is marked so."""

import picows
from picows import WSBackoff, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_reconnect


class Client(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(WSMsgType.TEXT, 5)  # mistake
        transport.send("text", b"")  # mistake
        transport.send_ping(message=1.0)  # mistake
        frame.fin = False  # mistake
        frame.get_payload()  # mistake

    def on_ws_connected(self, transport: WSTransport, extra: int) -> None: ...  # mistake


async def main() -> None:
    await ws_connect(Client)  # mistake
    await ws_connect(Client, b"ws://127.0.0.1/")  # mistake
    await ws_connect(Client, "ws://127.0.0.1/", max_frame_size="big")  # mistake
    WSBackoff(jitter="half")  # mistake
    ws_reconnect(Client)  # mistake
    picows.ws_reconect(Client)  # mistake
    for _ in ws_reconnect(Client, "ws://127.0.0.1/"):  # mistake
        pass
