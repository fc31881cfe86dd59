"""Run by a test: web3 and a node that answers it, both on picows.websockets in the place of the package `websockets`."""

import asyncio
import json
import sys

import picows.websockets

sys.modules["websockets"] = picows.websockets  # type: ignore[assignment]

from web3 import AsyncWeb3, WebSocketProvider  # noqa: E402

HASH = "0x" + "ab" * 32


async def node(ws: picows.websockets.ServerConnection) -> None:
    """JSON-RPC, as far as it is needed here."""
    async for text in ws:
        call = json.loads(text)
        result = {"eth_chainId": "0x1", "eth_blockNumber": "0x10", "eth_subscribe": "0xcafe", "eth_unsubscribe": True}[call["method"]]
        await ws.send(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}))
        if call["method"] == "eth_subscribe":
            for _ in range(2):
                event = {"subscription": "0xcafe", "result": HASH}
                await ws.send(json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": event}))


async def main() -> None:
    async with picows.websockets.serve(node, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncWeb3(WebSocketProvider(f"ws://127.0.0.1:{port}")) as w3:
            print(await w3.eth.block_number, await w3.eth.chain_id)
            assert isinstance(w3.provider._ws, picows.websockets.ClientConnection)
            subscription = await w3.eth.subscribe("newPendingTransactions")
            seen = []
            async for message in w3.socket.process_subscriptions():
                seen.append(message["result"].hex())
                if len(seen) == 2:
                    break
            print(subscription, seen == ["ab" * 32] * 2)
            await w3.eth.unsubscribe(subscription)


asyncio.run(main())
