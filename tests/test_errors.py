"""Errors: their tree, what they carry, and that they survive being copied to another process."""

from __future__ import annotations

import copy
import inspect
import pickle
import pickletools

import pytest

from picows import errors
from picows.errors import (
    WSBrokerError,
    WSError,
    WSHandshakeError,
    WSInvalidHeaderError,
    WSInvalidMessageError,
    WSInvalidStatusError,
    WSInvalidUpgradeError,
    WSInvalidURL,
    WSPositionError,
    WSProtocolError,
    WSSlowPeerError,
)
from picows.upgrade import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

HANDSHAKE = (WSHandshakeError, WSInvalidMessageError, WSInvalidStatusError)
HEADER = (WSInvalidHeaderError, WSInvalidUpgradeError)


def test_every_public_error_is_exported() -> None:
    there = {name for name, cls in vars(errors).items() if inspect.isclass(cls) and cls.__module__ == errors.__name__}
    assert set(errors.__all__) == there - {"WSInvalidLocation"}  # of that users see the two bases


def test_tree() -> None:
    assert all(issubclass(error, WSHandshakeError) for error in (*HANDSHAKE, *HEADER))
    roots = (WSHandshakeError, WSProtocolError, WSInvalidURL, WSBrokerError, WSPositionError)
    assert all(issubclass(error, WSError) for error in roots)
    assert not any(issubclass(error, OSError) for error in roots)  # those pass through unwrapped
    assert issubclass(WSInvalidUpgradeError, WSInvalidHeaderError)
    assert issubclass(WSInvalidURL, ValueError)


@pytest.mark.parametrize("cls", HANDSHAKE)
def test_handshake_errors(cls: type[WSHandshakeError]) -> None:
    response = WSUpgradeResponse.create_ok_response()
    error = cls("what", b"head", b"body", response)
    assert str(error) == "what"
    assert (error.raw_header, error.raw_body, error.response) == (b"head", b"body", response)
    bare = cls("what")
    assert (bare.raw_header, bare.raw_body, bare.response) == (None, None, None)
    assert vars(cls("what", raw_body=b"x")) == {
        "raw_header": None,
        "raw_body": b"x",
        "response": None,
    }


@pytest.mark.parametrize("cls", HEADER)
def test_header_errors(cls: type[WSInvalidHeaderError]) -> None:
    error = cls("what", "Upgrade", "h2c", b"head", b"body")
    assert str(error) == "what"
    assert (error.name, error.value) == ("Upgrade", "h2c")
    assert (error.raw_header, error.raw_body, error.response) == (b"head", b"body", None)
    assert cls("what", "Upgrade").value is None


def test_protocol_error() -> None:
    error = WSProtocolError(1002, "what")
    assert (error.code, error.message, str(error)) == (1002, "what", "what")
    assert error.args == (1002, "what")
    assert WSProtocolError(message="what", code=1002).args == (1002, "what")


def test_invalid_url() -> None:
    error = WSInvalidURL("ws:", "no host")
    assert (error.url, error.msg) == ("ws:", "no host")
    assert str(error) == "ws: isn't a valid URL: no host"


@pytest.mark.parametrize(
    "error",
    [
        WSError("what"),
        WSHandshakeError("what", b"head"),
        WSInvalidHeaderError("what", "Upgrade", "h2c", b"head"),
        WSProtocolError(1002, "what"),
        WSInvalidURL("ws:", "no host"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_copied(error: WSError) -> None:
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_a_pickle_names_what_other_versions_hold_too() -> None:
    """Processes that exchange errors are not all upgraded at once."""
    response = WSUpgradeResponse.create_error_response(403)
    pickled = pickle.dumps(
        [
            WSInvalidStatusError("what", b"head", None, response),
            WSUpgradeRequest(),
            WSUpgradeResponseWithListener(response, None),
        ],
        protocol=2,  # which names a class in one instruction
    )
    named = {argument for instruction, argument, _ in pickletools.genops(pickled) if instruction.name == "GLOBAL"}
    assert {name for name in named if name.startswith("picows")} == {
        "picows.errors WSInvalidStatusError",
        "picows.errors _restore",
        "picows.upgrade WSUpgradeRequest",
        "picows.upgrade WSUpgradeResponse",
        "picows.upgrade WSUpgradeResponseWithListener",
    }


@pytest.mark.parametrize(
    "public",
    [
        *HANDSHAKE,
        *HEADER,
        WSProtocolError,
        WSInvalidURL,
        WSSlowPeerError,
        WSUpgradeRequest,
        WSUpgradeResponse,
        WSUpgradeResponseWithListener,
    ],
)
def test_attributes_are_annotated(public: type) -> None:
    """What an object has, its class tells, to whom looks at `__annotations__` too."""
    annotated = {name for base in public.__mro__ for name in vars(base).get("__annotations__", {})}
    parameters = set(inspect.signature(public).parameters) - {"description"}
    assert parameters <= annotated
