"""Run by a test: gql and a server of its protocol, both on picows.websockets in the place of the package `websockets`."""

import asyncio
import json
import sys

import picows.websockets

sys.modules["websockets"] = picows.websockets  # type: ignore[assignment]

import websockets.asyncio.server  # noqa: E402
from gql import Client, gql  # noqa: E402
from gql.transport.exceptions import TransportConnectionFailed  # noqa: E402
from gql.transport.websockets import WebsocketsTransport  # noqa: E402

assert websockets.asyncio.server is picows.websockets.asyncio.server


async def graphql(ws: picows.websockets.ServerConnection) -> None:
    """The protocol graphql-transport-ws, as far as it is needed here."""
    async for text in ws:
        message = json.loads(text)
        if message["type"] == "connection_init":
            await ws.send(json.dumps({"type": "connection_ack"}))
        elif message["type"] == "subscribe":
            count = message["payload"]["variables"]["count"]
            for number in range(count):
                await ws.send(json.dumps({"type": "next", "id": message["id"], "payload": {"data": {"number": number}}}))
            if count > 5:
                await ws.close(4400, "too many")
                return
            await ws.send(json.dumps({"type": "complete", "id": message["id"]}))


async def main() -> None:
    query = gql("subscription numbers($count: Int!) { number }")
    protocols = [picows.websockets.Subprotocol("graphql-transport-ws")]
    async with picows.websockets.serve(graphql, "127.0.0.1", 0, subprotocols=protocols) as server:
        port = server.sockets[0].getsockname()[1]
        transport = WebsocketsTransport(f"ws://127.0.0.1:{port}/", headers={"X-Token": "1"})
        async with Client(transport=transport) as session:
            [connection] = server.connections
            assert connection.request.headers["X-Token"] == "1"
            assert connection.subprotocol == "graphql-transport-ws"
            query.variable_values = {"count": 3}
            print([result["number"] async for result in session.subscribe(query)])
            assert isinstance(transport.adapter.websocket, picows.websockets.ClientConnection)
            query.variable_values = {"count": 6}
            try:
                print([result["number"] async for result in session.subscribe(query)])
            except TransportConnectionFailed as error:
                assert isinstance(error.__cause__, picows.websockets.ConnectionClosedError)
                print(error.__cause__)


asyncio.run(main())
