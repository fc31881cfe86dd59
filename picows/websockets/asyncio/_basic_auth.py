"""Names and passwords in the header Authorization (RFC 7617)."""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from http import HTTPStatus
from typing import Any, Union

from ..exceptions import InvalidHeader
from ..headers import build_www_authenticate_basic, parse_authorization_basic
from ..http11 import Request, Response
from .connection import ServerConnection

Credentials = Union["tuple[str, str]", Iterable["tuple[str, str]"]]


def basic_auth(
    realm: str = "",
    credentials: Credentials | None = None,
    check_credentials: Callable[[str, str], Awaitable[bool] | bool] | None = None,
) -> Callable[[ServerConnection, Request], Coroutine[Any, Any, Response | None]]:
    """A `process_request` that lets in who gives a user name and a password (RFC 7617).

    The connection has the name as `username`. For want of TLS, everybody on the way reads both.

    :param realm: what they are for, as browsers show it
    :param credentials: a pair of name and password, or several
    :param check_credentials: a function or coroutine function in place of `credentials`, called
        with a name and a password; says whether they are right
    :raises TypeError, ValueError: the arguments are wrong
    """
    if (credentials is None) == (check_credentials is None):
        raise ValueError("provide either credentials or check_credentials")
    if check_credentials is not None and not callable(check_credentials):
        raise TypeError(f"check_credentials must be callable, got {check_credentials!r}")
    check = _check_by(_known(credentials)) if check_credentials is None else check_credentials
    challenge = build_www_authenticate_basic(realm)

    def refuse(connection: ServerConnection, text: str) -> Response:
        response = connection.respond(HTTPStatus.UNAUTHORIZED, text)
        response.headers["WWW-Authenticate"] = challenge
        return response

    async def process_request(connection: ServerConnection, request: Request) -> Response | None:
        values = request.headers.get_all("Authorization")
        if not values:
            return refuse(connection, "Missing credentials\n")
        try:
            username, password = parse_authorization_basic(", ".join(values))
        except InvalidHeader:
            return refuse(connection, "Unsupported credentials\n")
        right = check(username, password)
        if inspect.isawaitable(right):
            right = await right
        if not right:
            return refuse(connection, "Invalid credentials\n")
        connection.username = username
        return None

    return process_request


def _known(credentials: Any) -> dict[str, str]:
    if _is_pair(credentials):
        return dict([credentials])
    is_list = isinstance(credentials, Iterable) and not isinstance(credentials, str)
    pairs: list[Any] = list(credentials) if is_list else [None]
    if not all(_is_pair(pair) for pair in pairs):
        raise TypeError(f"invalid credentials argument: {credentials}")
    return dict(pairs)


def _is_pair(credentials: Any) -> bool:
    return (
        isinstance(credentials, tuple)
        and len(credentials) == 2
        and all(isinstance(item, str) for item in credentials)
    )


def _check_by(known: dict[str, str]) -> Callable[[str, str], bool]:
    def check(username: str, password: str) -> bool:
        # Compared in any case, and in a time that tells nothing.
        expected = known.get(username)
        return (
            hmac.compare_digest((expected or "").encode(), password.encode())
            and expected is not None
        )

    return check
