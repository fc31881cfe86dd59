"""The answers that are no upgrade: pages, and refusals."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from ..upgrade import WSUpgradeResponse
from . import jsons


def response_of(result: Any) -> WSUpgradeResponse:
    """The response that a GET handler means by what it has returned."""
    if isinstance(result, WSUpgradeResponse):
        return result
    if isinstance(result, str):
        body, content_type = result.encode(), "text/html; charset=utf-8"
    elif isinstance(result, (bytes, bytearray, memoryview)):
        body, content_type = bytes(result), "application/octet-stream"
    elif isinstance(result, (dict, list)):
        text = jsons.dumps(result)
        body, content_type = text if isinstance(text, bytes) else text.encode(), "application/json"
    else:
        raise TypeError(
            f"a GET handler returned a {type(result).__name__}, "
            "expected str, bytes, dict, list or WSUpgradeResponse"
        )
    return WSUpgradeResponse.create_ok_response(body, {"Content-Type": content_type})


def error_response(status: HTTPStatus, detail: str = "") -> WSUpgradeResponse:
    text = detail or f"{status:d} {status.phrase}"
    return WSUpgradeResponse.create_error_response(status, text.encode("utf-8", "replace"))


def not_allowed(detail: str, methods: str) -> WSUpgradeResponse:
    """405, with the methods that the path has otherwise (RFC 9110 section 15.5.6)."""
    response = error_response(HTTPStatus.METHOD_NOT_ALLOWED, detail)
    response.headers.add("Allow", methods)
    return response
