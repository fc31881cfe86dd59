"""The echo client over TLS.

$ python -m examples.echo_client_tls --url wss://127.0.0.1:9002/

It trusts the demo server's certificate; for real servers say --system-trust, or --ca FILE for an
authority of your own.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl

from picows import ws_connect

from .echo_client import EchoClient
from .echo_server_tls import DEMO_CERTIFICATE


async def main(url: str, ca: str | None) -> None:
    # A default context checks the certificate and the host name: keep it so. A private authority
    # is a reason to trust that authority, not to switch the checks off.
    context = ssl.create_default_context(cafile=ca)
    transport, _ = await ws_connect(EchoClient, url, ssl_context=context)
    tls = transport.underlying_transport.get_extra_info("ssl_object")
    print(f"Connected by {tls.version()}")
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="wss://127.0.0.1:9002/")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--ca", default=str(DEMO_CERTIFICATE), help="PEM file: whom to trust")
    trust.add_argument("--system-trust", dest="ca", action="store_const", const=None)
    args = parser.parse_args()
    asyncio.run(main(args.url, args.ca))
