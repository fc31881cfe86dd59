"""Which proxy a client goes through: the system's, or one that is given."""

from __future__ import annotations

import ssl
import urllib.request
from typing import Any

from ..arguments import check_context, check_optional, check_seconds
from ..errors import WSInvalidURL
from ..url import WSParsedURL, parse_proxy_url
from .exceptions import InvalidProxy

# What a proxy is called that looks up the server's name, as ours do where the protocol lets them.
_OUR_SCHEMES = {"socks5h": "socks5", "socks4a": "socks4"}

# What is prefixed by `proxy_` for TLS with the proxy.
_TLS_ARGUMENTS = ("ssl", "server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout")


def system_proxy(url: WSParsedURL) -> str | None:
    """The proxy that the environment, or the operating system, has for a server; None: none."""
    if urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
        return None
    proxies = urllib.request.getproxies()
    for name in ("wss" if url.is_secure else "ws", "socks", "https", "http"):
        if name == "http" and url.is_secure:
            break
        proxy = proxies.get(name)
        if proxy:
            # Operating systems write the scheme of any proxy as http.
            return f"socks5h{proxy[4:]}" if name == "socks" and proxy.startswith("http://") else proxy
    return None


def checked_proxy(proxy: Any) -> str:
    """The URL of a proxy, as `dial` takes it.

    :raises InvalidProxy: it is none
    """
    if not isinstance(proxy, str):
        raise InvalidProxy(proxy, "expected a URL, True or None")
    scheme, colon, rest = proxy.partition(":")
    ours = _OUR_SCHEMES.get(scheme.lower(), scheme) + colon + rest
    try:
        parsed = parse_proxy_url(ours)
    except WSInvalidURL as exc:
        raise InvalidProxy(proxy, exc.msg) from exc
    if parsed.username is not None and parsed.password is None:
        raise InvalidProxy(proxy, "username provided without password")
    return ours


def take_tls(kwargs: dict[str, Any], proxy: str | None) -> dict[str, Any]:
    """Take the arguments about TLS with the proxy out; returns them as `dial` takes them.

    Without a proxy they do nothing: the system need not have one.

    :raises TypeError, ValueError: one of them is wrong, or the proxy has no TLS
    """
    given = {name: kwargs.pop(f"proxy_{name}", None) for name in _TLS_ARGUMENTS}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name == "ssl" and value is not True:
            check_context("proxy_ssl", value, ssl.PROTOCOL_TLS_SERVER)
        elif name == "server_hostname":
            check_optional("proxy_server_hostname", value, str)
        elif name != "ssl":
            check_seconds(f"proxy_{name}", value)
    if given and proxy is not None:
        scheme = parse_proxy_url(proxy).scheme
        if scheme != "https":
            raise ValueError(
                f"proxy_{next(iter(given))} is only meaningful with an https:// proxy, "
                f"the proxy is {scheme}://"
            )
    context = given.pop("ssl", True)
    return {"proxy_ssl_context": None if context is True else context, "proxy_tls": given}
