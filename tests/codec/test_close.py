"""The payload of CLOSE frames (RFC 6455 sections 5.5.1 and 7.4)."""

from __future__ import annotations

import pytest
from tests.codec.bindings import CodecError, may_travel, parse_close, write_close


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 0, b""),
        (b"\x03\xe8", 1000, b""),
        (b"\x03\xf3oh no", 1011, b"oh no"),
        (b"\x0f\xa0caf\xc3\xa9", 4000, "café".encode()),
        (b"\x13\x87" + b"x" * 123, 4999, b"x" * 123),
    ],
)
def test_both_ways(payload: bytes, code: int, reason: bytes) -> None:
    assert write_close(code, reason) == payload
    assert parse_close(payload) == (code, reason)


def test_no_code_is_an_empty_payload() -> None:
    assert write_close(0, b"ignored") == b""


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"\x03", "ERR_CLOSE_SIZE"),
        (b"\x00\x00", "ERR_CLOSE_CODE"),
        (b"\x03\xed", "ERR_CLOSE_CODE"),
        (b"\x03\xee\xff", "ERR_CLOSE_CODE"),
        (b"\x03\xe8\xc3", "ERR_CLOSE_REASON"),
        (b"\x03\xe8\xed\xa0\x80", "ERR_CLOSE_REASON"),
        (b"\x03\xe8 long enough for a word\xff", "ERR_CLOSE_REASON"),
    ],
)
def test_faults(payload: bytes, status: str) -> None:
    with pytest.raises(CodecError) as raised:
        parse_close(payload)
    assert raised.value.status == status


def test_the_codes_that_may_travel() -> None:
    travelling = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in [*range(70_000), 2**32 - 1, 65536 + 1000] if may_travel(code)} == travelling
