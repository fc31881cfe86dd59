"""WebSocket client and server for asyncio (RFC 6455): frames parsed where they lie, plain callbacks, Cython speed."""

from typing import TYPE_CHECKING, Any

from .busy_poll import busy_poll
from .client import ws_connect
from .deflate import WSDeflate
from .errors import (
    WSBrokerError,
    WSError,
    WSHandshakeError,
    WSInvalidHeaderError,
    WSInvalidMessageError,
    WSInvalidStatusError,
    WSInvalidUpgradeError,
    WSInvalidURL,
    WSPositionError,
    WSProtocolError,
    WSSlowPeerError,
)
from .picows import (
    PICOWS_DEBUG_LL,
    WSAutoPingStrategy,
    WSCloseCode,
    WSCloseHandshake,
    WSCloseInfo,
    WSFrame,
    WSListener,
    WSMsgType,
    WSSlowPeerPolicy,
    WSTransport,
    ws_broadcast,
)
from .stats import WSServerStats, WSStats
from .upgrade import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from .url import WSParsedURL

if TYPE_CHECKING:
    from .adopt import ws_adopt
    from .reconnect import WSBackoff, ws_reconnect
    from .server import WSServer, WSShutdownReport, ws_create_server
    from .topics import WSBrokeredTopics, WSTopics

__version__ = "3.0.0"

__all__ = [
    "PICOWS_DEBUG_LL",
    "WSAutoPingStrategy",
    "WSBackoff",
    "WSBrokerError",
    "WSBrokeredTopics",
    "WSCloseCode",
    "WSCloseHandshake",
    "WSCloseInfo",
    "WSDeflate",
    "WSError",
    "WSFrame",
    "WSHandshakeError",
    "WSInvalidHeaderError",
    "WSInvalidMessageError",
    "WSInvalidStatusError",
    "WSInvalidURL",
    "WSInvalidUpgradeError",
    "WSListener",
    "WSMsgType",
    "WSParsedURL",
    "WSPositionError",
    "WSProtocolError",
    "WSServer",
    "WSServerStats",
    "WSShutdownReport",
    "WSSlowPeerError",
    "WSSlowPeerPolicy",
    "WSStats",
    "WSTopics",
    "WSTransport",
    "WSUpgradeRequest",
    "WSUpgradeResponse",
    "WSUpgradeResponseWithListener",
    "__version__",
    "busy_poll",
    "ws_adopt",
    "ws_broadcast",
    "ws_connect",
    "ws_create_server",
    "ws_reconnect",
]

# What a client does without is imported when it is asked for: the modules and the names in them.
_LATER = {
    "WSBackoff": "reconnect",
    "WSBrokeredTopics": "topics",
    "WSServer": "server",
    "WSShutdownReport": "server",
    "WSTopics": "topics",
    "ws_adopt": "adopt",
    "ws_create_server": "server",
    "ws_reconnect": "reconnect",
}

# To a type checker this function would make every name right.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _LATER:
            found = getattr(import_module(f"picows.{_LATER[name]}"), name)
            globals()[name] = found
            return found
        if name in _LATER.values():
            return import_module(f"picows.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LATER.values()})
