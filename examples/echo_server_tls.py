"""The echo server over TLS.

$ python -m examples.echo_server_tls --cert cert.pem --key key.pem

Without --cert it uses a certificate for localhost whose key everybody knows: for a first try only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
from pathlib import Path

from picows import ws_create_server

from .echo_server import listener_factory

DEMO_CERTIFICATE = Path(__file__).with_name("localhost.pem")


async def main(host: str, port: int, cert: Path, key: Path | None) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    # Arguments that ws_create_server does not know go to the event loop's create_server.
    server = await ws_create_server(listener_factory, host, port, ssl=context)
    for sock in server.sockets:
        print("Listening on wss://{}:{}/".format(*sock.getsockname()))
    await server.serve_forever()  # until Ctrl+C, of which every client is told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9002, help="0 for any free one")
    parser.add_argument("--cert", type=Path, default=DEMO_CERTIFICATE, help="PEM file: the chain")
    parser.add_argument("--key", type=Path, help="PEM file: its key, unless it is in --cert")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.host, args.port, args.cert, args.key))
