"""Every option of a connection, written once: its type, default, check and documentation."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, Union, cast

from .arguments import (
    check_bool,
    check_context,
    check_int,
    check_member,
    check_optional,
    check_seconds,
)
from .deflate import WSDeflate
from .picows import WSAutoPingStrategy, WSSlowPeerPolicy

if TYPE_CHECKING:
    from .proxy import SocketFactory

Side = Literal["client", "server"]
LoggerLike = Union[logging.Logger, "logging.LoggerAdapter[Any]"]
_Check = Callable[[str, object], None]

# What a connection calls, some of it only when something goes wrong.
LOGGER_METHODS = ("isEnabledFor", "log", "debug", "info", "warning", "error")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2

_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^A-Z\s/?#@*,]+")  # RFC 6454 section 6.2

# Where a docstring has the paragraphs of the options.
_PLACE = ".. the options, as picows/settings.py describes them"


class Option:
    """An option of `ws_connect`, of `ws_create_server` and `ws_adopt`, or of all three.

    `check` is called with the option's name and a value. It raises a TypeError or ValueError that
    tells both if the value is wrong.
    """

    name: str

    def __init__(
        self,
        defaults: dict[Side, object],
        check: _Check,
        documentation: str,
        only_for: Side | None = None,
    ) -> None:
        self.defaults = defaults
        self.check = check
        self.documentation: str = inspect.cleandoc(documentation)
        self.only_for = only_for

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def is_for(self, side: Side) -> bool:
        return self.only_for in (None, side)

    def paragraph(self) -> str:
        return "\n    ".join([f":param {self.name}:", *self.documentation.splitlines()])


# What the option is to a type checker its annotation says, hence Any.
def _option(default: object, check: _Check, documentation: str) -> Any:
    return Option({"client": default, "server": default}, check, documentation)


def _option_by_side(check: _Check, documentation: str, *, client: object, server: object) -> Any:
    return Option({"client": client, "server": server}, check, documentation)


def _client_option(default: object, check: _Check, documentation: str) -> Any:
    return Option({"client": default, "server": default}, check, documentation, "client")


def _server_option(default: object, check: _Check, documentation: str) -> Any:
    return Option({"client": default, "server": default}, check, documentation, "server")


def _or_none(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _instance_or_none(kind: type) -> _Check:
    return functools.partial(check_optional, kind=kind)


def _at_least(lowest: int) -> _Check:
    return functools.partial(check_int, lowest=lowest)


def _check_write_buffer_size(name: str, value: object) -> None:
    if value is not None and value != "auto":
        if isinstance(value, str):
            raise ValueError(f'{name} must be an int, "auto" or None, got {value!r}')
        check_int(name, value, 1)


def _check_logger(name: str, value: object) -> None:
    if value is None or isinstance(value, str):
        return
    for method in LOGGER_METHODS:
        if not callable(getattr(value, method, None)):
            raise TypeError(
                f"{name} must be a str, a logger or None, "
                f"got {value!r}, which has no method {method}()"
            )


def _check_headers(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a mapping, an iterable of pairs or None, got {value!r}")


def _check_proxy(name: str, value: object) -> None:
    if value is not None and value is not True and not isinstance(value, str):
        raise TypeError(f"{name} must be a str, True or None, got {value!r}")


def _check_list(name: str, value: object) -> Sequence[object]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list or None, got {value!r}")
    return value


def _check_subprotocols(name: str, value: object) -> None:
    for subprotocol in _check_list(name, value):
        if not isinstance(subprotocol, str):
            raise TypeError(f"{name} must be a list of str, got {subprotocol!r} in it")
        if not _TOKEN.fullmatch(subprotocol):
            raise ValueError(
                f"{name} must be a list of names without blanks and separators "
                f"(RFC 6455 section 4.1), got {subprotocol!r} in it"
            )
        if _check_list(name, value).count(subprotocol) > 1:
            raise ValueError(f"{name} must not name anything twice, got {value!r}")


def _check_origins(name: str, value: object) -> None:
    for origin in _check_list(name, value):
        if isinstance(origin, re.Pattern):
            if not isinstance(origin.pattern, str):
                raise TypeError(f"{name} must hold patterns of str, got {origin!r}")
        elif isinstance(origin, str):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{name} must hold origins as browsers write them, 'scheme://host[:port]' in "
                    f"lower case and without a slash behind, got {origin!r}"
                )
        elif origin is not None:
            raise TypeError(f"{name} must be a list of str, patterns and None, got {origin!r} in it")


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {value!r}")


class Settings:
    """The options of one `ws_connect` or of one server, each of them found right.

    A new option is defined here and written into the signatures of the functions that take it; a
    test compares the two. What a compiled connection has to know of it goes to
    ``_core/options.pxi``.
    """

    ssl_context: ssl.SSLContext | None = _client_option(
        None,
        functools.partial(check_context, wrong_protocol=ssl.PROTOCOL_TLS_SERVER),
        """
        The TLS settings for a ``wss`` URL. Default: those of :func:`ssl.create_default_context`,
        which verify the server's certificate against the system's authorities.
        """,
    )
    disconnect_on_exception: bool = _option(
        True,
        check_bool,
        """
        Whether an exception from ``on_ws_frame`` ends the connection. If not, it is only logged.
        """,
    )
    websocket_handshake_timeout: float | None = _option(
        5,
        _or_none(check_seconds),
        """
        How many seconds the peer may take for its part of the opening handshake. None: no limit.
        A server counts from the connecting of a client to the end of its upgrade request, and of
        a listener factory that is a coroutine. A client waits so long for the answer to its
        request, and for a proxy to open its tunnel; all that comes before is bounded by
        `connect_timeout`.
        """,
    )
    logger_name: str | LoggerLike | None = _option(
        None,
        _check_logger,
        """
        Where to log: None for the logger ``picows.client`` or ``picows.server``, a str for
        ``picows.<logger_name>``, or an object with the methods of a :class:`logging.Logger`.
        """,
    )
    enable_auto_ping: bool = _option(
        False,
        check_bool,
        """
        Whether to look for a dead peer by pings, and to disconnect when no reply comes.
        """,
    )
    auto_ping_idle_timeout: float = _option_by_side(
        check_seconds,
        """
        With PING_WHEN_IDLE how many seconds without any received data are followed by a ping;
        with PING_PERIODICALLY the seconds between one ping and the next.
        """,
        client=10,
        server=20,
    )
    auto_ping_reply_timeout: float = _option_by_side(
        check_seconds,
        """
        How many seconds the peer may take to reply before it counts as dead.
        """,
        client=10,
        server=20,
    )
    auto_ping_strategy: WSAutoPingStrategy = _option(
        WSAutoPingStrategy.PING_WHEN_IDLE,
        functools.partial(check_member, enum=WSAutoPingStrategy),
        """
        When to ping: ``WSAutoPingStrategy.PING_WHEN_IDLE`` or ``PING_PERIODICALLY``.
        """,
    )
    enable_auto_pong: bool = _option(
        True,
        check_bool,
        """
        Whether to reply to each received PING by a PONG. Such a PING is not given to the listener.
        """,
    )
    max_frame_size: int | None = _option(
        None,
        _or_none(_at_least(1)),
        """
        The largest payload in bytes that a received frame may have. For a larger one
        CLOSE(MESSAGE_TOO_BIG) is sent, before the payload is read. None: 10 MiB, or
        `max_message_size` if that is more and messages are assembled.
        """,
    )
    extra_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = _client_option(
        None,
        _check_headers,
        """
        Headers to add to the upgrade request, as a mapping or as (name, value) pairs. A ``Host``
        among them replaces the one made from the URL.
        """,
    )
    max_redirects: int = _client_option(
        5,
        _at_least(0),
        """
        How many HTTP redirects (301, 302, 303, 307, 308) to follow, from ``ws`` to ``wss`` but
        never back. 0: none, a redirect is a :class:`WSInvalidStatusError`. When the origin
        (scheme, host or port) changes, what was meant for the first one is not sent to the other:
        the credentials in `url`, the headers Authorization, Cookie, Proxy-Authorization and Host
        of `extra_headers`, and ``server_hostname``.
        """,
    )
    proxy: str | Literal[True] | None = _client_option(
        None,
        _check_proxy,
        """
        The URL of a proxy to connect through: ``http://``, ``https://`` (both by CONNECT),
        ``socks4://``, ``socks5://`` or ``socks5h://``, with ``user:password@`` if the proxy wants
        it. The proxy looks up the server's name; for SOCKS4, which knows addresses only, we do.
        True: the proxy that the environment (HTTPS_PROXY and its like) or else the system's
        settings name for the server, if they name one. None: none, whatever these say.
        """,
    )
    proxy_ssl_context: ssl.SSLContext | None = _client_option(
        None,
        functools.partial(check_context, wrong_protocol=ssl.PROTOCOL_TLS_SERVER),
        """
        The TLS settings for the connection to an ``https`` proxy, as `ssl_context` is for the
        connection to the server.
        """,
    )
    read_buffer_init_size: int = _option(
        16 * 1024,
        _at_least(1),
        """
        A hint in bytes (default 16 KiB): for an incomplete frame up to this size no more memory
        is kept than what was received of it, for a larger one room for all of it.
        """,
    )
    socket_factory: SocketFactory | None = _client_option(
        None,
        _check_callable,
        """
        Called with the endpoint to connect to, a :class:`WSParsedURL`: that of the proxy if there
        is one, and of the server otherwise. It returns, or is a coroutine function that returns,
        a stream :class:`socket.socket`, or None to go on without. If the socket is connected it is
        used as it is (a Unix domain socket has to be), if not it is connected to the endpoint.
        From then on it belongs to the connection. Arguments in `kwargs` that are about making
        sockets do not apply to it.
        """,
    )
    use_aiofastnet: bool | None = _option(
        None,
        _instance_or_none(bool),
        """
        Whether connections are made by the package aiofastnet in place of the event loop. None:
        if it is installed, except for plain TCP on uvloop, whose own are lighter and as quick.
        """,
    )
    coalesce_writes: bool = _option(
        True,
        check_bool,
        """
        Whether what the listener sends on a connection while several frames that came in one read
        are delivered to it leaves in one write: at the end of them, when 64 KiB wait, at
        :meth:`WSTransport.flush`, before a disconnect. What answers a lone frame, and what is
        sent outside of callbacks, leaves at once in any case.
        """,
    )
    enable_auto_close: bool = _option(
        True,
        check_bool,
        """
        Whether to answer a received CLOSE, with the code and the reason it has, and to end the
        connection, after the listener has seen it (RFC 6455 section 5.5.1). A listener that has
        answered it or disconnected by then is left alone. If not, it is all the listener's.
        """,
    )
    max_write_buffer_size: int | Literal["auto"] | None = _option(
        "auto",
        _check_write_buffer_size,
        """
        How many bytes may wait for a peer that does not read. When a data frame would make it
        more, `slow_peer` says what happens. Control frames always pass, and so does a frame while
        nothing waits. ``"auto"``: 64 MiB, but no limit for a listener that overrides
        ``pause_writing`` and so judges for itself. None: no limit.
        """,
    )
    slow_peer: WSSlowPeerPolicy = _option(
        WSSlowPeerPolicy.DISCONNECT,
        functools.partial(check_member, enum=WSSlowPeerPolicy),
        """
        ``WSSlowPeerPolicy.DISCONNECT``: abort the connection, with one line in the log;
        ``DROP_NEWEST``: do not send the frame, `send` returns False; ``RAISE``: `send` raises
        :class:`WSSlowPeerError`.
        """,
    )
    receive_timeout: float | None = _option(
        None,
        _or_none(check_seconds),
        """
        How many seconds the rest of a frame, or of a message that is assembled, may keep us
        waiting without a byte received, before CLOSE(POLICY_VIOLATION) is sent. None: no limit.
        Time in which the user has paused reading, by ``pause_reading`` of the underlying
        transport, does not count.
        """,
    )
    assemble_messages: bool = _option(
        False,
        check_bool,
        """
        Whether ``on_ws_frame`` gets whole messages (TEXT or BINARY, ``fin`` set) and control
        frames, in place of frames as they come. Fragments are joined, and their order, the
        reserved bits and the UTF-8 of TEXT are checked; a faulty message ends the connection by
        the close code that fits and never reaches the listener.
        """,
    )
    max_message_size: int = _option(
        10 * 1024 * 1024,
        _at_least(1),
        """
        The largest message in bytes, decompressed, that is assembled. For a larger one
        CLOSE(MESSAGE_TOO_BIG) is sent, before memory is taken for it. A `max_frame_size` that is
        given bounds each frame of it as well.
        """,
    )
    compression: WSDeflate | None = _option(
        None,
        _instance_or_none(WSDeflate),
        """
        The settings of permessage-deflate (RFC 7692): a client offers it, a server takes an offer.
        Messages are then assembled. None: no compression.
        """,
    )
    connect_timeout: float | None = _client_option(
        10,
        _or_none(check_seconds),
        """
        How many seconds connecting may take: `socket_factory`, looking up the name, TCP, the proxy
        and TLS, all together; for each redirect anew. None: no limit but those of the operating
        system and of ``ssl_handshake_timeout`` (60 seconds unless given).
        """,
    )
    subprotocols: Sequence[str] | None = _option(
        None,
        _or_none(_check_subprotocols),
        """
        Names of subprotocols (RFC 6455 section 1.9): a client offers them, the one it likes best
        first. A server chooses the first of its own that the client offers; where there is none
        it agrees to the upgrade without one, and a response of the listener factory that
        chooses itself has its way. :attr:`WSTransport.subprotocol` tells what was agreed on.
        """,
    )
    origins: Sequence[str | re.Pattern[str] | None] | None = _server_option(
        None,
        _or_none(_check_origins),
        """
        Which pages may connect: browsers name the origin of the page in the header Origin
        (RFC 6455 section 10.2). A str is an origin, ``"https://example.com"``, a compiled pattern
        has to match a whole one, and None stands for clients that send none, which are no
        browsers. All other requests for an upgrade are answered by 403 Forbidden, and the
        listener factory is not asked. Default: all are let in.
        """,
    )

    def __init__(self, side: Side, arguments: Mapping[str, object]) -> None:
        """Take the options that are among `arguments`; the others have their defaults."""
        self.side = side
        for option in OPTIONS:
            value = arguments.get(option.name, option.defaults[side])
            option.check(option.name, value)
            setattr(self, option.name, value)

    @property
    def logger(self) -> LoggerLike:
        name = self.side if self.logger_name is None else self.logger_name
        return logging.getLogger(f"picows.{name}") if isinstance(name, str) else name


OPTIONS = tuple(value for value in vars(Settings).values() if isinstance(value, Option))


def document_options(function: Callable[..., object]) -> None:
    """Put the paragraphs of the options that it takes at their place in its docstring."""
    # Python leaves out docstrings under -OO.
    if function.__doc__ is not None:
        taken = cast("FunctionType", function).__kwdefaults__ or {}
        paragraphs = [option.paragraph() for option in OPTIONS if option.name in taken]
        docstring = inspect.cleandoc(function.__doc__)
        function.__doc__ = docstring.replace(_PLACE, "\n".join(paragraphs))
