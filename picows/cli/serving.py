"""One process that serves: the socket, TLS, the target, and an end that clients are told of."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from .. import WSCloseCode, WSDeflate, ws_create_server


def bind(options: argparse.Namespace) -> socket.socket:
    """Listen where the arguments say."""
    tls_context(options)  # what is wrong with it is told before anybody can connect
    host = options.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", options.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
        )
    return socket.create_server((host, options.port), family=family, backlog=1024)


def url_of(sock: socket.socket, options: argparse.Namespace) -> str:
    host, port = sock.getsockname()[:2]
    scheme = "wss" if options.tls_cert else "ws"
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.tls_cert:
        if options.tls_key:
            raise ValueError("--tls-key needs --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def load(target: str) -> Any:
    """The object that MODULE:NAME names; modules of the working folder are found.

    :raises ValueError: there is no such module or object, or it is none to serve
    """
    module_name, _, path = target.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Its own imports may fail, too. That is another story, with a traceback.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"there is no module {module_name!r}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise ValueError(f"{module_name!r} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise ValueError(f"{target} is neither a listener factory nor an application: {found!r}")
    return found


def going_away() -> int:
    return WSCloseCode.GOING_AWAY


async def serve(
    target: Any,
    sock: socket.socket,
    options: argparse.Namespace,
    started: Callable[[], object] | None = None,
    close_code: Callable[[], int] = going_away,
) -> int:
    """Serve until cancelled; then say CLOSE to every client and wait for the answers.

    Cancelled once more, it aborts the connections that are left.

    :param started: called when it takes connections
    :param close_code: tells, when it is cancelled, what clients are told
    """
    arguments: dict[str, Any] = {"sock": sock, "ssl": tls_context(options)}
    if options.compress:
        arguments["compression"] = WSDeflate()
    # An application of picows.web serves itself.
    if callable(getattr(target, "serve", None)):
        server = await target.serve(None, None, **arguments)
    else:
        server = await ws_create_server(target, assemble_messages=True, **arguments)
    if started is not None:
        started()
    try:
        await asyncio.Event().wait()  # a signal cancels it
    except asyncio.CancelledError:
        try:
            await server.shutdown(
                close_code(), spread=options.shutdown_spread, timeout=options.shutdown_timeout
            )
        finally:
            # Those that were aborted are to see their on_ws_disconnected before the event loop is gone.
            await server.wait_closed()
    return 0
