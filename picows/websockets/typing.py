"""The types that signatures name."""

from __future__ import annotations

import http
import logging
from typing import Any, NewType, Optional, Union

__all__ = [
    "BytesLike",
    "Data",
    "DataLike",
    "ExtensionName",
    "ExtensionParameter",
    "LoggerLike",
    "Origin",
    "StatusLike",
    "Subprotocol",
]

Data = Union[str, bytes]  # what is received
BytesLike = Union[bytes, bytearray, memoryview]
DataLike = Union[str, BytesLike]  # what can be sent
LoggerLike = Union[logging.Logger, "logging.LoggerAdapter[Any]"]
StatusLike = Union[http.HTTPStatus, int]
Origin = NewType("Origin", str)
Subprotocol = NewType("Subprotocol", str)
ExtensionName = NewType("ExtensionName", str)
ExtensionParameter = tuple[str, Optional[str]]
ExtensionHeader = tuple[ExtensionName, "list[ExtensionParameter]"]
ConnectionOption = NewType("ConnectionOption", str)
UpgradeProtocol = NewType("UpgradeProtocol", str)
