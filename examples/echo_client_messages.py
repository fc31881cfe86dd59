"""An echo client of whole messages: sends a document compressed, compares the reply and closes.

$ python -m examples.echo_client_messages --url ws://127.0.0.1:9001/
"""

from __future__ import annotations

import argparse
import asyncio
import json

from picows import WSDeflate, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

DOCUMENT = json.dumps([{"symbol": f"S{i}", "bid": i, "ask": i + 1} for i in range(1000)])


class EchoClient(WSListener):
    def __init__(self) -> None:
        self.reply = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, DOCUMENT)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.reply.set_result(frame.get_payload_as_utf8_text())


async def main(url: str) -> None:
    transport, client = await ws_connect(EchoClient, url, compression=WSDeflate())
    print("Agreed on:", transport.response.headers.get("Sec-WebSocket-Extensions", "no compression"))
    reply = await client.reply
    print(f"{len(reply)} characters came back", "unchanged" if reply == DOCUMENT else "changed")
    await transport.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    asyncio.run(main(parser.parse_args().url))
