"""proxy=True: the proxy that the environment names, by the rules of the standard library."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from picows import WSInvalidURL, ws_connect, ws_reconnect
from tests.connection.networks import Echo, Network, Recorder, cut, over_both_loops, over_tcp_and_tls
from tests.connection.proxies import USER_INFO, Redirector, client_tls, running_proxy
from tests.ports import free_port


@pytest.fixture(autouse=True)
def _no_proxy_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            monkeypatch.delenv(name)
    # With any of it set, nothing else of the system is asked.
    monkeypatch.setenv("UNUSED_PROXY", "http://localhost:1")


@contextlib.asynccontextmanager
async def echo_server(net: Network) -> AsyncIterator[str]:
    async with net.serve(lambda request: Echo(), use_aiofastnet=False) as url:
        yield url.replace("127.0.0.1", "localhost")


async def connect(net: Network, url: str, **options: Any) -> None:
    tls = {"ssl_context": client_tls(), "proxy_ssl_context": client_tls()}
    await cut(await net.connect(Recorder, url, **{"proxy": True, **tls, **options}))


def nobody() -> str:
    return f"http://127.0.0.1:{free_port()}"


@over_tcp_and_tls
@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5", "socks5h"])
def test_the_environments_proxy(net: Network, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with running_proxy(scheme, auth=True) as proxy, echo_server(net) as url:
            await connect(net, url)
            assert not proxy.asked
            monkeypatch.setenv("HTTP_PROXY" if net.tls else "HTTPS_PROXY", nobody())
            monkeypatch.setenv("HTTPS_PROXY" if net.tls else "HTTP_PROXY", proxy.url_for(USER_INFO) + "/")
            await connect(net, url)
            assert len(proxy.asked) == 1
            await connect(net, url, proxy=None)
            assert len(proxy.asked) == 1

    net.run(test())


@over_both_loops
def test_which_name_wins(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with running_proxy("http") as proxy, echo_server(net) as url:
            for count, name in enumerate(("ALL_PROXY", "SOCKS_PROXY", "HTTP_PROXY", "http_proxy"), 1):
                monkeypatch.setenv(name, proxy.url)
                await connect(net, url)
                assert len(proxy.asked) == count
                monkeypatch.setenv(name, nobody())
                with pytest.raises(ConnectionRefusedError):
                    await connect(net, url)

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(("scheme", "written"), [("http", ""), ("socks4", "socks://"), ("socks4", "SOCKS://")])
def test_a_proxy_in_short(net: Network, scheme: str, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with running_proxy(scheme) as proxy, echo_server(net) as url:
            monkeypatch.setenv("ALL_PROXY", proxy.url.replace(f"{scheme}://", written))
            await connect(net, url)
            assert len(proxy.asked) == 1

    net.run(test())


@pytest.mark.parametrize(
    ("host", "exceptions", "direct"),
    [
        ("localhost", "localhost", True),
        ("localhost", "*", True),
        ("localhost", "example.com, localhost", True),
        ("localhost", "localhost:{port}", True),
        ("localhost", "localhost:1", False),
        ("localhost", "host", False),
        ("localhost", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1:{port}", True),
        ("[::1]", "::1", True),
        ("[::1]", "[::1]:{port}", True),
        ("[::1]", "::2", False),
    ],
)
def test_exceptions(net: Network, host: str, exceptions: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection tells what was connected to: the server, or the proxy."""

    async def test() -> None:
        port = free_port()
        proxy = nobody()
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", exceptions.format(port=port))
        with pytest.raises(OSError, match=str(port) if direct else proxy.rpartition(":")[2]):
            await connect(net, f"ws://{host}:{port}/")

    net.run(test())


@over_both_loops
def test_each_redirect_is_judged_anew(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with running_proxy("http") as proxy, echo_server(net) as url:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            for host in ("127.0.0.1", "localhost"):
                async with Redirector(url.replace("localhost", host)).serve() as redirecting:
                    await connect(net, redirecting)
            assert [f":{port}/" in url for _, port in proxy.asked] == [False, False, True]

    net.run(test())


@pytest.mark.parametrize("proxy", ["ftp://localhost", "http://", "http://localhost:99999", "http://localhost/path"])
def test_a_proxy_that_cannot_be_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(WSInvalidURL, match=r"the proxy that the system's settings name") as error:
        asyncio.run(ws_connect(Recorder, "ws://localhost:1/", proxy=True))
    assert error.value.url == proxy


def test_a_wrong_proxy_is_no_reason_to_wait() -> None:
    with pytest.raises(WSInvalidURL, match="scheme"):
        ws_reconnect(Recorder, "ws://localhost:1/", proxy="ftp://localhost")


@pytest.mark.parametrize("value", [False, 1, b"http://localhost"])
def test_what_is_neither_a_url_nor_true(value: object) -> None:
    with pytest.raises(TypeError, match="proxy must be a str, True or None"):
        asyncio.run(ws_connect(Recorder, "ws://localhost:1/", proxy=value))  # type: ignore[arg-type]
