"""What a transport shows of the closing handshake, as values: compared, kept in sets, printed."""

from __future__ import annotations

from picows import WSCloseCode, WSCloseHandshake, WSCloseInfo


def test_they_are_compared_by_code_and_reason() -> None:
    info = WSCloseInfo(WSCloseCode.OK, "done")
    assert info == WSCloseInfo(1000, "done")
    assert hash(info) == hash(WSCloseInfo(1000, "done"))
    assert len({info, WSCloseInfo(1000, "done"), WSCloseInfo(1000, None)}) == 2
    for other in (WSCloseInfo(1001, "done"), WSCloseInfo(1000, "gone"), WSCloseInfo(1000, None), (1000, "done"), None):
        assert info != other


def test_they_are_shown_as_they_are_made() -> None:
    info = WSCloseInfo(WSCloseCode.OK, "done")
    assert repr(info) == "WSCloseInfo(code=<WSCloseCode.OK: 1000>, reason='done')"
    assert repr(WSCloseHandshake(None, info, False)) == f"WSCloseHandshake(sent=None, recv={info!r}, recv_then_sent=False)"
    assert repr(WSCloseHandshake(info, info, True)) == f"WSCloseHandshake(sent={info!r}, recv={info!r}, recv_then_sent=True)"
