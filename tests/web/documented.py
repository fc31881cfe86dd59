"""The examples of the document that describes this interface, as they stand there.

Two slips of it are mended: its handlers call their parameter `websocket` and then use `ws`, and one hook says `ws.protocols`
for `ws.subprotocols`. Where it uses one name twice, the second is numbered.
"""

# isort: skip_file
# ruff: noqa
# mypy: ignore-errors
import asyncio
from picows.web import ASyncApp, ASGIScope, Route, WebSocket
from picows.web.exceptions import WebSocketDisconnect, WebSocketProtocolError
from datetime import datetime


async def websocket_helloworld(ws: WebSocket):
    await ws.connect()

    # Send 100 Hello World!
    for _ in range(100):
       await ws.send('Hello World!')

    await ws.close()


async def websocket_helloworld_2(ws: WebSocket):
    await ws.connect()

    # Send 100 Hello World!
    for _ in range(100):
       await ws.send('Hello World!')


class WebSocketEvents():
    async def on_request(self, ws: WebSocket, scope: ASGIScope):
        if scope['type'] == 'websocket':
            # Connect the WebSocket, always. Take care of that boilerplate.
            await ws.connect()


from picows.web import status

class WebSocketEvents_2():
    async def on_request(self, ws: WebSocket, scope: ASGIScope):
        if scope['type'] == 'websocket' and 'my.protocol.example.io' not in ws.subprotocols:
            raise WebSocketProtocolError(
                detail='Protocol %s is required' % 'my.protocol.example.io')
        else:
            await ws.connect()


class WebSocketEvents_3():
    async def on_response(self, ws: WebSocket, scope: ASGIScope):
        if scope['type'] == 'websocket' and ws.connected:
            await ws.send_json({
                'status': 'ok',
                'message': 'Have a nice Day!',
            })


async def websocket_helloworld_msg(ws: WebSocket):
    await ws.connect()

    # Send 100 Hello World! JSON messages
    for idx in range(100):
        await ws.send_json(
            {
                'index': idx,
                'text': 'Hello World!'
            }
        )


async def websocket_helloworld_forever(ws: WebSocket):
    await ws.connect()

    try:
        while True:
            await ws.send_json(
                {
                    'timestamp': datetime.now().isoformat(),
                    'text': 'Hello World!'
                }
            )

            await asyncio.sleep(1)

    except WebSocketDisconnect:
        # The WebSocket was closed by the client
        pass

    # Do any needed post processing here


# Ping Pong, until the client goes away
async def websocket_pingpong_forever(ws: WebSocket):
    await ws.connect()

    try:
        while True:
            # wait for the ping. ws.receive() will block until a message comes in.
            ping = await ws.receive()
            await ws.send('pong')
    except WebSocketDisconnect:
        pass

# Ping Pong JSON, until the client goes away
async def websocket_pingpong_forever_2(ws: WebSocket):
    await ws.connect()

    try:
        while True:
            # wait for the ping. ws.receive_json() will block until a message comes in.
            ping = await ws.receive_json()
            await ws.send_json(
                {
                    'paddle': 'pong'
                }
            )
    except WebSocketDisconnect:
        pass
