"""What a handler may catch, and what it may raise."""

from __future__ import annotations

from .status import WS_1000_OK, WS_1002_PROTOCOL_ERROR

_CLOSED_BY_PEERS = {*range(1000, 1004), *range(1007, 1015)}  # and 3000 to 4999, RFC 6455 section 7.4


def check_code(code: object) -> None:
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"code must be an int, got {code!r}")
    if code not in _CLOSED_BY_PEERS and not 3000 <= code <= 4999:
        raise ValueError(f"code must be 1000-1003, 1007-1014 or 3000-4999, got {code}")


class WebSocketDisconnect(Exception):
    """The connection has ended: nothing more can be received or sent.

    A handler that does not catch it ends quietly.

    :param code: the close code: the peer's; ours, if only we sent a CLOSE; 1005 for a CLOSE
        without a code; 1006 when the connection broke (RFC 6455 section 7.1.5)
    :param reason: what was sent with the code
    """

    def __init__(self, code: int = WS_1000_OK, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        told = f" {self.reason!r}" if self.reason else ""
        return f"the connection has ended with close code {self.code}{told}"


class WebSocketProtocolError(Exception):
    """The client has done what it may not; raised by a handler or a hook, this is not logged.

    Before the WebSocket is connected the answer is 403 Forbidden with `detail` as its text,
    afterwards a CLOSE with `code` and `detail` as its reason.

    :raises TypeError, ValueError: `detail` is no `str`, or `code` none that a CLOSE can have
    """

    def __init__(self, detail: str = "", code: int = WS_1002_PROTOCOL_ERROR) -> None:
        # Where it is raised, and not where it is answered and nobody knows the handler any more.
        if not isinstance(detail, str):
            raise TypeError(f"detail must be a str, got {detail!r}")
        check_code(code)
        super().__init__(detail)
        self.detail = detail
        self.code = code
