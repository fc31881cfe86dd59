"""The HTTP upgrade of both sides: bytes in, an object or an error out; an object in, bytes out.

Nothing here does I/O or knows asyncio. What RFC 9112 and RFC 6455 section 4 demand is checked by
the side that reads; the two stand on the messages and these on the grammar, and know nothing of each
other. This file does nothing but show what those hold.
"""

from .client import MAX_BODY_SIZE, ResponseReader, create_request
from .grammar import MAX_HEAD_SIZE, MAX_HEADERS, accept_value
from .messages import (
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    status_of,
)
from .server import MAX_TARGET_SIZE, RequestReader, answer

__all__ = [
    "MAX_BODY_SIZE",
    "MAX_HEADERS",
    "MAX_HEAD_SIZE",
    "MAX_TARGET_SIZE",
    "RequestReader",
    "ResponseReader",
    "WSUpgradeRequest",
    "WSUpgradeResponse",
    "WSUpgradeResponseWithListener",
    "accept_value",
    "answer",
    "create_request",
    "status_of",
]
