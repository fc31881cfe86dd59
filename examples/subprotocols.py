"""Negotiating a subprotocol (RFC 6455, section 1.9): the client offers, the server picks one.

$ python -m examples.subprotocols
"""

from __future__ import annotations

import asyncio
import json

from picows import (
    WSCloseCode,
    WSFrame,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_connect,
    ws_create_server,
)

HEADER = "Sec-WebSocket-Protocol"


class Greeter(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, self.greeting())

    def greeting(self) -> str:
        return "hello"


class JsonGreeter(Greeter):
    def greeting(self) -> str:
        return json.dumps({"greeting": "hello"})


# In the order the server prefers them.
SUBPROTOCOLS = {"greeting.v2.json": JsonGreeter, "greeting.v1.text": Greeter}


def listener_factory(
    request: WSUpgradeRequest,
) -> WSUpgradeResponseWithListener:
    # The offer is a comma-separated list, and may stand on several lines.
    lines = request.headers.getall(HEADER, [])
    offered = {name.strip() for line in lines for name in line.split(",")}
    for name, listener_class in SUBPROTOCOLS.items():
        if name in offered:
            # Only a subprotocol that the client offered may be named here, and only one.
            response = WSUpgradeResponse.create_101_response({HEADER: name})
            return WSUpgradeResponseWithListener(response, listener_class())
    # A server could go on without any, by create_101_response() alone; this one insists.
    refusal = WSUpgradeResponse.create_error_response(400, b"No known subprotocol\n")
    return WSUpgradeResponseWithListener(refusal, None)


class Client(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            # None if the server chose none, and never one that was not offered: picows checks.
            print(f"{transport.subprotocol}: {frame.get_payload_as_utf8_text()}")
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()


async def main() -> None:
    server = await ws_create_server(listener_factory, "127.0.0.1", 0)
    url = "ws://{}:{}/".format(*server.sockets[0].getsockname())

    for offer in (["greeting.v1.text", "greeting.v2.json"], ["greeting.v1.text"], ["farewell.v1"]):
        print(f"Offering {', '.join(offer)}")
        try:
            transport, _ = await ws_connect(Client, url, subprotocols=offer)
        except WSInvalidStatusError as exc:
            print(f"Refused: {exc.raw_body!r}")
        else:
            await transport.wait_disconnected()

    server.close()
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
