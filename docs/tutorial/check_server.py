"""Tells whether a server can be used, and if not, why."""

import asyncio
import sys

from picows import WSError, WSInvalidStatusError, WSListener, ws_connect


async def check(url: str) -> str:
    try:
        transport, _ = await ws_connect(WSListener, url)
    except WSInvalidStatusError as error:
        return f"There is a server, but it refused us: {error}"
    except WSError as error:
        return f"That is no websocket server: {error}"
    except asyncio.TimeoutError:
        return "The server took our request, but did not answer it in time"
    except OSError as error:
        return f"No connection: {error}"

    times = await asyncio.wait_for(transport.measure_roundtrip_time(3), timeout=10)
    await transport.close()
    return f"It works, a round trip takes {min(times) * 1000:.2f} ms"


async def main(url: str = "ws://127.0.0.1:9001/quotes") -> None:
    print(await check(url))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
