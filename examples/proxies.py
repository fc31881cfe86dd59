"""Connecting through a proxy: http, https, socks4 or socks5, with a user name or without.

$ python -m examples.proxies --proxy socks5://user:password@127.0.0.1:1080

The proxy resolves the host name, except with SOCKS4, which knows addresses only. To a wss URL,
TLS goes through the proxy from end to end. Without --proxy the system's settings count, such as
the environment variable HTTPS_PROXY.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Literal
from urllib.parse import urlsplit

from picows import ws_connect

from .echo_client import EchoClient


async def main(url: str, proxy: str | Literal[True]) -> None:
    through = "the system's" if proxy is True else urlsplit(proxy).scheme
    print(f"Connecting through {through} proxy")
    transport, _ = await ws_connect(EchoClient, url, proxy=proxy)
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    parser.add_argument("--proxy", help="proxy URL; the system's settings count without it")
    args = parser.parse_args()
    asyncio.run(main(args.url, args.proxy or True))
