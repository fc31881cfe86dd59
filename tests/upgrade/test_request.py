"""What a WSUpgradeRequest tells of its target and its cookies, and what is copied of it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from multidict import CIMultiDict

from picows import WSUpgradeRequest


def request(path: bytes = b"/", *cookies: str) -> WSUpgradeRequest:
    return WSUpgradeRequest(path=path, headers=CIMultiDict([("Cookie", cookie) for cookie in cookies]))


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        (b"/", "/"),
        (b"/chat/r%C3%A4ume?a=%2F", "/chat/räume"),
        (b"/a%2Fb+c", "/a/b+c"),
        (b"/%FF%zz", "/\ufffd%zz"),
        (b"/a?b?c", "/a"),
        (b"/a%3Fb?c", "/a?b"),
        (b"//x", "//x"),
        (b"/http://h/x", "/http://h/x"),
        (b"http://server.example.com:80/chat?x", "/chat"),
        (b"http://h/wss://x/y", "/wss://x/y"),
        (b"ws://h", "/"),
        (b"ws://h?x", "/"),
        (b"*", "*"),
        (b"", "/"),
    ],
)
def test_the_path(path: bytes, decoded: str) -> None:
    assert request(path).target_path == decoded


@pytest.mark.parametrize(
    ("path", "pairs"),
    [
        (b"/", []),
        (b"/?", []),
        (b"/?a=1&b=%C3%A4+x&a=2", [("a", "1"), ("b", "ä x"), ("a", "2")]),
        (b"/?empty=&none&=nameless", [("empty", ""), ("none", ""), ("", "nameless")]),
        (b"/?a=b=c&d=?/", [("a", "b=c"), ("d", "?/")]),
        (b"/?a=%FF%", [("a", "\ufffd%")]),
        (b"ws://h?x=1", [("x", "1")]),
    ],
)
def test_the_query(path: bytes, pairs: list[tuple[str, str]]) -> None:
    query = request(path).query
    assert list(query.items()) == pairs
    for name, _ in pairs:
        assert query.getall(name) == [value for other, value in pairs if other == name]


@pytest.mark.parametrize(
    ("lines", "cookies"),
    [
        ([], {}),
        ([""], {}),
        (["sid=31d4d96e; lang=en"], {"sid": "31d4d96e", "lang": "en"}),
        (["a=1;b=2 ;  c = 3"], {"a": "1", "b": "2", "c": "3"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (["a=x==; b="], {"a": "x==", "b": ""}),
        (["junk; a=1; =x; ;; {}[]=y; b c=2"], {"a": "1", "{}[]": "y", "b c": "2"}),
        (["sid=first; sid=second"], {"sid": "first"}),
        (['a="quoted"; b="; c=""'], {"a": "quoted", "b": '"', "c": ""}),
        ([r'a="x\054\"y\073\\\011"; b="\n\400"'], {"a": 'x,"y;\\\t', "b": "n400"}),
    ],
)
def test_the_cookies(lines: list[str], cookies: dict[str, str]) -> None:
    assert request(b"/", *lines).cookies == cookies


def test_cookies_as_the_standard_library_writes_them() -> None:
    http_cookies = pytest.importorskip("http.cookies")
    value = 'all of: ,;"\\ é'  # no control characters, which newer releases of it refuse to write
    morsel = http_cookies.SimpleCookie({"a": value})["a"]
    assert request(b"/", f"x=1; a={morsel.coded_value}").cookies == {"x": "1", "a": value}


@pytest.mark.parametrize("name", ["query", "cookies"])
def test_what_is_changed_in_a_result_changes_nothing(name: str) -> None:
    asked = request(b"/?a=1", "a=1")
    getattr(asked, name)["a"] = "2"
    assert getattr(asked, name)["a"] == "1"


def test_a_request_without_a_connection() -> None:
    assert request().get_extra_info("peername") is None
    assert request().get_extra_info("peername", "nobody") == "nobody"


class Transport:
    def get_extra_info(self, name: str, default: object = None) -> object:
        return name

    def __reduce__(self) -> Any:
        raise AssertionError("this is the connection's")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda asked: pickle.loads(pickle.dumps(asked))])
@pytest.mark.parametrize("connected", [True, False])
def test_a_copy_knows_nothing_of_the_connection(again: Any, connected: bool) -> None:
    asked = request(b"/x", "a=1")
    if connected:
        asked._transport = Transport()
    copied = again(asked)
    assert (copied.method, copied.path, copied.version, copied.headers) == (b"GET", b"/x", b"HTTP/1.1", asked.headers)
    assert copied.get_extra_info("peername") is None
    assert asked.get_extra_info("peername") == ("peername" if connected else None)
