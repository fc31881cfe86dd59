"""WebSocket client and server for asyncio (RFC 6455): frames parsed where they lie, plain callbacks, Cython speed."""

from .adopt import ws_adopt
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
from .reconnect import WSBackoff, ws_reconnect
from .server import WSServer, WSShutdownReport, ws_create_server
from .stats import WSServerStats, WSStats
from .topics import WSBrokeredTopics, WSTopics
from .upgrade import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from .url import WSParsedURL

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
