"""The exceptions of this package: what the other side, or a URL, did wrong.

Faults in the caller's own arguments are ValueError or TypeError, and what the operating system
reports (ConnectionResetError, ssl.SSLError, ...) passes through as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .upgrade import WSUpgradeResponse

__all__ = [
    "WSBrokerError",
    "WSError",
    "WSHandshakeError",
    "WSInvalidHeaderError",
    "WSInvalidMessageError",
    "WSInvalidStatusError",
    "WSInvalidURL",
    "WSInvalidUpgradeError",
    "WSPositionError",
    "WSProtocolError",
    "WSSlowPeerError",
]


class WSError(Exception):
    """Base of every websocket-specific error."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Constructors take more than `args`: copy() and pickle restore without calling them.
        return _restore, (type(self), self.args), self.__dict__


def _restore(cls: type[WSError], args: tuple[Any, ...]) -> WSError:
    return cls.__new__(cls, *args)


class WSHandshakeError(WSError):
    """The HTTP upgrade failed.

    :param description: what was received and what was expected
    :param raw_header: the head of the HTTP message as received, as far as it is known, without
        the empty line that ends it
    :param raw_body: the bytes received behind the head
    :param response: on the client side the response received, when its head could be read; on
        the server side the response that answers the faulty request
    """

    raw_header: bytes | None
    raw_body: bytes | None
    response: WSUpgradeResponse | None

    def __init__(
        self,
        description: str,
        raw_header: bytes | None = None,
        raw_body: bytes | None = None,
        response: WSUpgradeResponse | None = None,
    ) -> None:
        super().__init__(description)
        self.raw_header = raw_header
        self.raw_body = raw_body
        self.response = response


class WSInvalidMessageError(WSHandshakeError):
    """What was received is not the HTTP/1.1 message it should be."""


class WSInvalidStatusError(WSHandshakeError):
    """The server answered the upgrade with another status than 101 Switching Protocols."""


class WSInvalidHeaderError(WSHandshakeError):
    """A header of the handshake is missing, repeated or wrong (RFC 6455 section 4).

    :param name: the name of the header
    :param value: its value, None when the header is missing
    """

    name: str
    value: str | None

    def __init__(
        self,
        description: str,
        name: str,
        value: str | None = None,
        raw_header: bytes | None = None,
        raw_body: bytes | None = None,
        response: WSUpgradeResponse | None = None,
    ) -> None:
        super().__init__(description, raw_header, raw_body, response)
        self.name = name
        self.value = value


class WSInvalidUpgradeError(WSInvalidHeaderError):
    """The Upgrade or the Connection header does not speak of a websocket upgrade."""


class WSProtocolError(WSError):
    """The websocket protocol was violated.

    Raised by a listener's callback, it chooses the code and the reason of the CLOSE that is sent.

    :param code: the close code that answers the violation (RFC 6455 section 7.4)
    :param message: what was received and what was expected
    """

    code: int
    message: str

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return str(self.message)


class WSSlowPeerError(WSError):
    """More than `max_write_buffer_size` would wait for a peer that does not read.

    :param waiting: how many bytes waited already
    :param size: how many more were to be sent
    :param limit: the `max_write_buffer_size`
    """

    waiting: int
    size: int
    limit: int

    def __init__(self, waiting: int, size: int, limit: int) -> None:
        super().__init__(waiting, size, limit)
        self.waiting = waiting
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.waiting} bytes wait for a slow peer and {self.size} more are to be sent, "
            f"expected {self.limit} at most (max_write_buffer_size)"
        )


class WSInvalidURL(WSError, ValueError):
    """A websocket or proxy URL cannot be used (RFC 6455 section 3).

    :param url: the URL
    :param msg: what is wrong with it
    """

    url: str
    msg: str

    def __init__(self, url: str, msg: str) -> None:
        super().__init__(f"{url} isn't a valid URL: {msg}")
        self.url = url
        self.msg = msg


class WSInvalidLocation(WSInvalidURL, WSHandshakeError):
    """A redirect leads to a URL that cannot be used.

    So it is caught with all else that goes wrong while redirects are followed, as a
    :class:`WSHandshakeError`; what was received is in its `raw_header`, `raw_body` and `response`.
    """


class WSBrokerError(WSError):
    """The broker between several processes is away, has refused, or has not confirmed."""


class WSPositionError(WSError):
    """Not all that was published to a topic behind a position is stored any longer.

    :param topic: the topic
    :param position: the position that was asked for
    :param msg: what is stored instead
    """

    topic: str
    position: str

    def __init__(self, topic: str, position: str, msg: str) -> None:
        super().__init__(f"what was published to {topic!r} after position {position!r} cannot be had: {msg}")
        self.topic = topic
        self.position = position
