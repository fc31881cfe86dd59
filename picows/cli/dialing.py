"""From the arguments that all clients take to a connection."""

from __future__ import annotations

import argparse
import ssl
from typing import Any, TypeVar

from .. import WSDeflate, WSListener, WSTransport, ws_connect

Listener = TypeVar("Listener", bound=WSListener)


async def dial(
    listener: Listener, options: argparse.Namespace, **more: Any
) -> tuple[WSTransport, Listener]:
    """Connect as the arguments say."""
    headers = list(options.header)
    if options.origin is not None:
        headers.append(("Origin", options.origin))
    transport, _ = await ws_connect(
        lambda: listener,
        options.url,
        ssl_context=tls_context(options),
        connect_timeout=options.timeout,
        websocket_handshake_timeout=options.timeout,
        extra_headers=headers,
        subprotocols=options.subprotocol or None,
        proxy=True if options.proxy == "env" else options.proxy,
        compression=WSDeflate() if options.compress else None,
        assemble_messages=True,
        **more,
    )
    return transport, listener


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """What the TLS arguments ask for; None: the defaults."""
    if not (options.ca or options.cert or options.key or options.insecure):
        return None
    context = ssl.create_default_context(cafile=options.ca)
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert or options.key:
        context.load_cert_chain(options.cert or options.key, options.key)
    return context


def peer_of(transport: WSTransport) -> str:
    """The address at the other end, as people write it."""
    host, port = transport.underlying_transport.get_extra_info("peername")[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
