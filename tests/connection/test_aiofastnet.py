"""Faults of the version of aiofastnet that we know, as docs/guides/speed.rst tells of them: a mended one is noticed here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.connection.networks import Network, Recorder, over_every_tls


@over_every_tls
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["nothing", "part"])
def test_a_client_that_leaves_during_the_tls_handshake(net: Network, sent: bytes) -> None:
    """A health check opens a TCP connection and closes it. aiofastnet reports a class in place of an exception."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        reported: list[dict[str, Any]] = []
        others = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        async with net.serve(lambda request: Recorder()) as url:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].strip("/")))
            writer.write(sent)
            writer.close()
            while net.fast and not reported:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
        loop.set_exception_handler(others)
        assert [context["exception"] for context in reported] == [ConnectionResetError] * net.fast

    net.run(test())
