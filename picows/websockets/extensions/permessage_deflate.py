"""The settings of the one extension that there is, permessage-deflate (RFC 7692)."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["ClientPerMessageDeflateFactory", "ServerPerMessageDeflateFactory"]


class _Factory:
    """
    :param server_no_context_takeover: whether the server compresses each message by itself
    :param client_no_context_takeover: the same for the client
    :param server_max_window_bits: the window of what the server sends, None: as it likes
    :param client_max_window_bits: the window of what the client sends; True for a client: what the
        server asks for
    :param compress_settings: ``level`` and ``memLevel`` of `zlib.compressobj`
    """

    name = "permessage-deflate"
    _own: str  # the window of what this side compresses; zlib cannot do 8 bits

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        for name, bits in (
            ("server_max_window_bits", server_max_window_bits),
            ("client_max_window_bits", client_max_window_bits),
        ):
            lowest = 9 if name == self._own else 8
            if bits is not None and not lowest <= bits <= 15:
                raise ValueError(f"{name} must be between {lowest} and 15")
        if compress_settings is not None and "wbits" in compress_settings:
            raise ValueError(f"compress_settings must not include wbits, set {self._own} instead")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits: int | Literal[True] | None = client_max_window_bits
        self.compress_settings = compress_settings


class ClientPerMessageDeflateFactory(_Factory):
    __doc__ = f"For `connect`.\n{_Factory.__doc__}"
    _own = "client_max_window_bits"

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | Literal[True] | None = True,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        # True would do for 1, which no window can have.
        window = None if client_max_window_bits is True else client_max_window_bits
        super().__init__(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            window,
            compress_settings,
        )
        self.client_max_window_bits: int | Literal[True] | None = client_max_window_bits


class ServerPerMessageDeflateFactory(_Factory):
    __doc__ = f"""For `serve`.
{_Factory.__doc__}
    :param require_client_max_window_bits: whether a client that cannot keep
        `client_max_window_bits` gets no compression; it does not in any case
    """
    _own = "server_max_window_bits"

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        compress_settings: dict[str, Any] | None = None,
        require_client_max_window_bits: bool = False,
    ) -> None:
        super().__init__(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
            compress_settings,
        )
        if require_client_max_window_bits and client_max_window_bits is None:
            raise ValueError(
                "require_client_max_window_bits is enabled, "
                "but client_max_window_bits isn't configured"
            )
        self.require_client_max_window_bits = require_client_max_window_bits
