"""Plain HTTP on the WebSocket port: routes, a health check, a redirect, a refusal.

$ python -m examples.http_responses --port 9001
$ curl -i http://127.0.0.1:9001/health
$ python -m examples.echo_client --url ws://127.0.0.1:9001/old
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
from http import HTTPStatus

from picows import (
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from .echo_server import EchoListener

TOKEN = b"Bearer open-sesame"


def route(
    request: WSUpgradeRequest,
) -> WSListener | WSUpgradeResponseWithListener | None:
    path = request.path.partition(b"?")[0]
    if path == b"/":
        return EchoListener()
    if path == b"/health":
        # Load balancers ask by a plain GET, with no upgrade. Any answer but 101 suits that.
        return http(WSUpgradeResponse.create_ok_response(b"alive\n"))
    if path == b"/old":
        # ws_connect follows this; a browser's WebSocket does not.
        return http(WSUpgradeResponse.create_redirect_response(HTTPStatus.PERMANENT_REDIRECT, "/"))
    if path == b"/private":
        authorization = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(authorization, TOKEN):  # its duration tells nothing of TOKEN
            return http(
                WSUpgradeResponse.create_error_response(
                    HTTPStatus.UNAUTHORIZED, b"Who are you?\n", {"WWW-Authenticate": "Bearer"}
                )
            )
        return EchoListener()
    return None  # 404


def http(response: WSUpgradeResponse) -> WSUpgradeResponseWithListener:
    # No listener: the connection ends with the response.
    response.headers["Cache-Control"] = "no-store"
    if response.body is not None:
        response.headers["Content-Type"] = "text/plain"
    return WSUpgradeResponseWithListener(response, None)


async def main(host: str, port: int) -> None:
    server = await ws_create_server(route, host, port)
    for sock in server.sockets:
        print("Listening on ws://{}:{}/".format(*sock.getsockname()))
    await server.serve_forever()  # until Ctrl+C, of which every client is told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.host, args.port))
