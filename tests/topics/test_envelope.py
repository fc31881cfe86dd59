"""What travels through a broker comes out as it went in, and what is none is told."""

from __future__ import annotations

import pytest

from picows import WSMsgType
from picows._envelope import Envelope, pack, unpack

WHOLE = pack(Envelope(b"somebody", 7, WSMsgType.TEXT, None, "key", b"payload"))


@pytest.mark.parametrize("latest", [None, "", "btc", "a key of two lines\n\u00e9"])
@pytest.mark.parametrize("compress", [None, False, True])
@pytest.mark.parametrize("msg_type", [WSMsgType.TEXT, WSMsgType.BINARY])
def test_there_and_back(msg_type: WSMsgType, compress: bool | None, latest: str | None) -> None:
    for payload in (b"", b"x" * 1000):
        envelope = Envelope(b"somebody", (1 << 64) - 1, msg_type, compress, latest, payload)
        got = unpack(pack(envelope))
        assert got == envelope
        assert type(got.msg_type) is WSMsgType
        assert got.compress is compress


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes, expected 22 or more"),
        (WHOLE[:21], "21 bytes, expected 22 or more"),
        (WHOLE[:24], "24 bytes, expected 25 or more"),
        (b"\x02" + WHOLE[1:], "no publisher of this version"),
        (WHOLE[:1] + b"\x00" + WHOLE[2:], "no publisher of this version"),
        (WHOLE[:1] + b"\x08" + WHOLE[2:], "no publisher of this version"),
        (WHOLE[:1] + b"\x31" + WHOLE[2:], "no publisher of this version"),
        (WHOLE[:22] + b"\xff\xff\xff" + WHOLE[25:], "utf-8"),
    ],
)
def test_what_is_none(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        unpack(data)
