"""How a published message travels through a broker: bytes that say what to send, and whose it is."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .picows import WSMsgType

# version, type and compression, who has published it, its number there, the length of the key (0: none, else one more).
_HEAD = struct.Struct("!BB8sQI")
_VERSION = 1
_COMPRESS = {None: 0, False: 0x10, True: 0x20}
_COMPRESS_OF = {bits: compress for compress, bits in _COMPRESS.items()}


class Envelope(NamedTuple):
    sender: bytes
    number: int
    msg_type: WSMsgType
    compress: bool | None
    latest: str | None
    payload: bytes


def pack(envelope: Envelope) -> bytes:
    key = b"" if envelope.latest is None else envelope.latest.encode()
    kind = envelope.msg_type | _COMPRESS[envelope.compress]
    length = 0 if envelope.latest is None else len(key) + 1
    return _HEAD.pack(_VERSION, kind, envelope.sender, envelope.number, length) + key + envelope.payload


def unpack(data: bytes) -> Envelope:
    """What was packed.

    :raises ValueError: that was not
    """
    if len(data) < _HEAD.size:
        raise ValueError(f"{len(data)} bytes, expected {_HEAD.size} or more")
    version, kind, sender, number, length = _HEAD.unpack_from(data)
    if version != _VERSION or kind & 0x0F not in (1, 2) or kind & 0xF0 not in _COMPRESS_OF:
        raise ValueError(f"it begins with {data[:2]!r}, which no publisher of this version has sent")
    begin = _HEAD.size + max(length - 1, 0)
    if begin > len(data):
        raise ValueError(f"{len(data)} bytes, expected {begin} or more")
    latest = data[_HEAD.size : begin].decode() if length else None
    return Envelope(sender, number, WSMsgType(kind & 0x0F), _COMPRESS_OF[kind & 0xF0], latest, data[begin:])
