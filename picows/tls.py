"""What waits under a TLS transport, or was lost there, which each event loop hides in another way.

Asked by `get_write_buffer_size()`, a TLS transport leaves out bytes that the kernel has not taken
either: those in the TCP transport below it, or its own encrypted ones. They are found here by
private attributes of the versions we know; what cannot be looked into counts as before.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

# These two count what a transport above them holds in their own size.
_COUNT_WHAT_IS_ABOVE = ("aiofastnet.selector_transport", "aiofastnet.ssl_transport")


def write_buffers(transport: Any) -> tuple[Callable[[], int], ...]:
    """What to call, and to add up, for the bytes that wait in `transport` and in all below it."""
    try:
        return tuple(_write_buffers(transport))
    except Exception:
        return (transport.get_write_buffer_size,)


def is_closing(transport: Any) -> bool:
    """Whether `transport`, or one below it, is closing or has lost its connection."""
    try:
        if transport.is_closing():
            return True
        # asyncio: TLS does not tell of TCP before Python 3.12, and stands on nothing when it is over.
        protocol = transport._ssl_protocol
        return protocol is None or protocol._transport is None or is_closing(protocol._transport)
    except AttributeError:
        return False


def _write_buffers(transport: Any) -> list[Callable[[], int]]:
    own: list[Callable[[], int]]
    if hasattr(transport, "get_local_write_buffer_size"):
        # aiofastnet: the size with the encrypted bytes. On the socket itself, but after start_tls.
        own = [transport.get_local_write_buffer_size]
        below = _transport_in(transport)
        if type(below).__module__ in _COUNT_WHAT_IS_ABOVE:
            own = []
    elif hasattr(transport, "_ssl_protocol"):
        # asyncio: nothing is known any more of what was closed twice.
        protocol = transport._ssl_protocol
        if protocol is None:
            return []
        # Up to 3.10 TLS holds nothing back, and names the size of the transport below.
        size = getattr(protocol, "_get_write_buffer_size", None)
        own = [] if size is None else [size]
        below = protocol._transport
    else:
        # uvloop, whose classes have no Python attributes; None: this is the TCP transport.
        protocol = transport.get_extra_info("uvloop.sslproto")
        own = [transport.get_write_buffer_size]
        below = None if protocol is None else _transport_in(protocol, transport)
    return own if below is None else own + _write_buffers(below)


def _transport_in(owner: Any, above: Any = None) -> Any:
    """The transport that a compiled object refers to; None: there is none, or it was lost."""
    for referent in gc.get_referents(owner):
        if referent is not above and hasattr(referent, "get_write_buffer_size"):
            return referent
    return None
