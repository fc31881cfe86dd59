"""The figures of a server for Prometheus, on the same port as its WebSockets.

$ pip install prometheus_client
$ python -m examples.metrics_server --port 9001
$ curl http://127.0.0.1:9001/metrics
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from picows import (
    WSListener,
    WSServer,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from .echo_server import EchoListener

NOW = {"connections", "handshakes", "queued", "max_queued"}


class ServerCollector(Collector):
    def __init__(self, server: WSServer) -> None:
        self.server = server

    def collect(self) -> Iterator[Metric]:
        figures = self.server.stats()._asdict()
        yield GaugeMetricFamily("picows_start_time_seconds", "Unix time", figures.pop("since"))
        for name, value in figures.items():
            kind = GaugeMetricFamily if name in NOW else CounterMetricFamily
            yield kind(f"picows_{name}", f"WSServerStats.{name}", value)


def metrics(registry: CollectorRegistry, accepted: str) -> WSUpgradeResponse:
    encode, content_type = choose_encoder(accepted)
    response = WSUpgradeResponse.create_ok_response(encode(registry))
    response.headers["Content-Type"] = content_type
    return response


async def main(host: str, port: int) -> None:
    registry = CollectorRegistry()

    def route(
        request: WSUpgradeRequest,
    ) -> WSListener | WSUpgradeResponseWithListener | None:
        path = request.path.partition(b"?")[0]
        if path == b"/":
            return EchoListener()
        if path == b"/metrics":
            accepted = request.headers.get("Accept", "")
            return WSUpgradeResponseWithListener(metrics(registry, accepted), None)
        return None

    server = await ws_create_server(route, host, port)
    registry.register(ServerCollector(server))
    for sock in server.sockets:
        print("Listening on ws://{}:{}/".format(*sock.getsockname()))
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.host, args.port))
