"""Which proxy a client goes through: the system's, or one that is given."""

from __future__ import annotations

import urllib.request
from typing import Any

from ..errors import WSInvalidURL
from ..url import WSParsedURL, parse_proxy_url
from .exceptions import InvalidProxy

# What a proxy is called that looks up the server's name, as ours do where the protocol lets them.
_OUR_SCHEMES = {"socks5h": "socks5", "socks4a": "socks4"}


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
