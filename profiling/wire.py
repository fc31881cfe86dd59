"""Frames as the peer of a measurement sends them: no code of what is measured."""

from __future__ import annotations

import struct


def binary_frame(payload: bytes, key: bytes | None = None) -> bytes:
    """A whole BINARY message; masked when a key is given (RFC 6455 section 5.2)."""
    size, masked = len(payload), 0 if key is None else 0x80
    if size < 126:
        head = struct.pack("!BB", 0x82, masked | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x82, masked | 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, masked | 127, size)
    if key is None:
        return head + payload
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
