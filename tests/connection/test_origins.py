"""Which pages may connect: the option `origins`."""

from __future__ import annotations

import re
from typing import Any

import pytest

from picows import WSInvalidStatusError, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from tests.connection.networks import Echo, Network, Recorder, cut, over_both_loops
from tests.connection.peers import REQUEST, stream

HERE = "https://example.com"
PATTERN = re.compile(r"https://[a-z]+\.example\.com(:[0-9]+)?")


@over_both_loops
@pytest.mark.parametrize(
    ("origins", "origin", "is_let_in"),
    [
        (None, "https://evil.example", True),
        ([HERE], HERE, True),
        ([HERE], "https://example.com.evil.example", False),
        ([HERE], "https://example.co", False),
        ([HERE], "http://example.com", False),
        ([HERE], "https://example.com:8443", False),
        ([HERE], "null", False),
        ([HERE], "", False),
        ([HERE], None, False),
        ([HERE, "null"], "null", True),
        ([None], None, True),
        ([None], HERE, False),
        ([None, HERE], HERE, True),
        ([PATTERN, HERE], "https://shop.example.com:8443", True),
        ([PATTERN], "https://shop.example.com.evil.example", False),
        ([PATTERN], "xhttps://shop.example.com", False),
        ([re.compile(".*")], None, False),
        ([], HERE, False),
        ([], None, False),
    ],
)
def test_who_is_let_in(net: Network, origins: Any, origin: str | None, is_let_in: bool) -> None:
    async def test() -> None:
        asked: list[WSUpgradeRequest] = []

        def factory(request: WSUpgradeRequest) -> Echo:
            asked.append(request)
            return Echo()

        headers = {} if origin is None else {"Origin": origin}
        async with net.serve(factory, origins=origins) as url:
            if is_let_in:
                await cut(await net.connect(Recorder, url, extra_headers=headers))
            else:
                with pytest.raises(WSInvalidStatusError) as caught:
                    await net.connect(Recorder, url, extra_headers=headers)
                assert caught.value.response is not None
                assert caught.value.response.status == 403
        assert len(asked) == is_let_in

    net.run(test())


def test_two_origins_are_none(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Echo(), origins=[HERE, None]) as url, stream(net, url) as peer:
            peer.write(REQUEST[:-2] + f"Origin: {HERE}\r\nOrigin: {HERE}\r\n\r\n".encode())
            assert (await peer.reader.read()).startswith(b"HTTP/1.1 403 Forbidden\r\n")

    net.run(test())


def test_what_is_no_request_for_an_upgrade_is_the_factorys(net: Network) -> None:
    def factory(request: WSUpgradeRequest) -> Any:
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"fine"), None)

    async def test() -> None:
        async with net.serve(factory, origins=[HERE]) as url:
            for origin in (b"", b"Origin: https://evil.example\r\n"):
                async with stream(net, url) as peer:
                    peer.write(b"GET / HTTP/1.1\r\nHost: a\r\n" + origin + b"\r\n")
                    assert (await peer.reader.read()).endswith(b"\r\n\r\nfine")

    net.run(test())


def test_a_list_that_is_changed_later(net: Network) -> None:
    """The server goes by what it was given."""

    async def test() -> None:
        origins: list[str | None] = [HERE]
        async with net.serve(lambda request: Echo(), origins=origins) as url:
            origins.append(None)
            with pytest.raises(WSInvalidStatusError):
                await net.connect(Recorder, url)

    net.run(test())
