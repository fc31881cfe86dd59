"""Connecting through a proxy: http, https, socks4 or socks5, with a user name or without.

$ python -m examples.proxies --proxy socks5://user:password@127.0.0.1:1080

The proxy resolves the host name, except with SOCKS4, which knows addresses only. To a wss URL,
TLS goes through the proxy from end to end.
"""

from __future__ import annotations

import argparse
import asyncio
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from picows import ws_connect

from .echo_client import EchoClient


def system_proxy(url: str) -> str | None:
    """The proxy that the environment (HTTPS_PROXY and its like) names for `url`."""
    # picows itself goes by its arguments alone; whether the system's settings count is up to you.
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get("https" if parts.scheme == "wss" else "http")


async def main(url: str, proxy: str | None) -> None:
    print(f"Connecting through {urlsplit(proxy).scheme} proxy" if proxy else "Connecting directly")
    transport, _ = await ws_connect(EchoClient, url, proxy=proxy)
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    parser.add_argument("--proxy", help="proxy URL; the system's settings count without it")
    args = parser.parse_args()
    asyncio.run(main(args.url, args.proxy or system_proxy(args.url)))
