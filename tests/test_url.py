"""Which URLs are taken, and what they are taken apart into (RFC 6455 section 3)."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picows.errors import WSError, WSInvalidURL
from picows.url import WSParsedURL, parse_proxy_url, parse_url


def test_every_part() -> None:
    url = "wss://us%20er:p%40ss@Example.COM:8443/a%20b/c?d=e&f"
    parsed = parse_url(url)
    assert parsed == WSParsedURL(
        url=url,
        scheme="wss",
        is_secure=True,
        netloc="us%20er:p%40ss@Example.COM:8443",
        host="example.com",
        port=8443,
        path="/a%20b/c",
        query="d=e&f",
        username="us er",
        password="p@ss",
    )
    assert parsed.resource_name == "/a%20b/c?d=e&f"
    assert parsed.user_info == ("us er", "p@ss")


def test_least_url() -> None:
    assert parse_url("ws://h") == WSParsedURL("ws://h", "ws", False, "h", "h", 80, "", "")
    assert parse_url("ws://h").resource_name == "/"
    assert parse_url("ws://h").user_info is None


def test_parsed_url_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse_url("ws://h").host = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "secure", "port"),
    [
        ("ws://h", False, 80),
        ("wss://h", True, 443),
        ("WSS://h", True, 443),
        ("ws://h:", False, 80),
        ("ws://h:443", False, 443),
        ("ws://h:1", False, 1),
        ("ws://h:65535", False, 65535),
        ("ws://h:00080/", False, 80),
    ],
)
def test_scheme_and_port(url: str, secure: bool, port: int) -> None:
    parsed = parse_url(url)
    assert (parsed.is_secure, parsed.port) == (secure, port)
    assert parsed.scheme == ("wss" if secure else "ws")


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        ("ws://h/", "/"),
        ("ws://h?", "/"),
        ("ws://h?a=b", "/?a=b"),
        ("ws://h/?a?b/c", "/?a?b/c"),
        ("ws://h//a/../b", "//a/../b"),
        ("ws://h/ä?ö=\N{SNOWMAN}", "/%C3%A4?%C3%B6=%E2%98%83"),
        ("ws://h/%C3%A4%20{}|^'\"<>`~", "/%C3%A4%20{}|^'\"<>`~"),
        ("ws://h/a:b@c", "/a:b@c"),
        ("ws://h?a@b:1", "/?a@b:1"),
    ],
)
def test_resource_name(url: str, resource: str) -> None:
    parsed = parse_url(url)
    assert parsed.resource_name == resource
    assert parsed.host == "h"


@pytest.mark.parametrize(
    ("netloc", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[2001:DB8::1]:80", "2001:db8::1"),
        ("[0:0::0:1]", "::1"),
        ("[fe80::1%25eth0]", "fe80::1%eth0"),
        ("under_score.example", "under_score.example"),
        ("example.com.", "example.com."),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_host(netloc: str, host: str) -> None:
    assert parse_url(f"ws://{netloc}/").host == host


def test_absent_and_empty_are_not_the_same() -> None:
    assert (parse_url("ws://u@h").username, parse_url("ws://u@h").password) == ("u", None)
    assert (parse_url("ws://:@h").username, parse_url("ws://:@h").password) == ("", "")


@pytest.mark.parametrize(
    ("netloc", "user_info"),
    [
        ("u:p@h", ("u", "p")),
        ("u:@h", ("u", "")),
        ("u@h", ("u", "")),
        (":p@h", ("", "p")),
        ("@h", None),
        (":@h", None),
        ("u:a:b@h", ("u", "a:b")),
        ("u@x:p@h", ("u@x", "p")),
        ("%C3%A4:%00@h", ("ä", "\0")),
        ("ä:ö@h", ("ä", "ö")),
        ("100%:p@h", ("100%", "p")),
    ],
)
def test_user_info(netloc: str, user_info: tuple[str, str] | None) -> None:
    assert parse_url(f"ws://{netloc}/").user_info == user_info


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "//h/",
        "http://h",
        "https://h",
        "wsx://h",
        "ws:h",
        "ws:/h",
        "ws:///path",
        "ws://",
        "ws://?a",
        "ws://:80",
        "ws://u@",
        "ws://u:p@:80",
        "ws://h:0",
        "ws://h:65536",
        "ws://h:-1",
        "ws://h:+1",
        "ws://h:1_0",
        "ws://h:x",
        "ws://h:80:80",
        "ws://h:\N{ARABIC-INDIC DIGIT EIGHT}",
        "ws://h:100000000000000000000",
        "ws://::1/",
        "ws://[::1",
        "ws://::1]",
        "ws://[::1]x",
        "ws://x[::1]",
        "ws://[]",
        "ws://[127.0.0.1]",
        "ws://[zz]",
        "ws://[fe80::1%eth0]",
        "ws://[fe80::1%25]",
        "ws://[fe80::1%25a/b]",
        'ws://[fe80::1%25a"b]',
        "ws://a..b",
        "ws://.a",
        "ws://" + "a" * 64,
        "ws://" + "ä" * 64,
        "ws://a%41",
        "ws://a*b",
        "ws://a,b",
        "ws://a\N{FULLWIDTH SOLIDUS}b",
        "ws://a\N{FULLWIDTH COMMERCIAL AT}b",
        "ws://\ud800",
        "ws://h/#",
        "ws://h#a",
        "ws://h/a#b",
        "ws://h/\ud800",
        "ws://h/?\ud800",
        "ws://u%FF@h",
        "ws://\ud800@h",
        "ws://u%3Ax:p@h",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(WSInvalidURL) as caught:
        parse_url(url)
    assert caught.value.url == url
    assert caught.value.msg
    assert caught.value.msg in str(caught.value)
    assert isinstance(caught.value, WSError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "bad", [*map(chr, range(0x21)), "\x7f", "\x80", "\x9f", "\xa0", "\u2028", "\u3000", "\\"]
)
@pytest.mark.parametrize(
    "url",
    [
        "{}ws://h/",
        "w{}s://h/",
        "ws://{}h/",
        "ws://h{}:80/",
        "ws://u{}@h/",
        "ws://h/a{}b",
        "ws://h/?{}",
        "ws://h/{}",
    ],
)
def test_blanks_and_control_characters_are_refused_everywhere(url: str, bad: str) -> None:
    with pytest.raises(WSInvalidURL):
        parse_url(url.format(bad))


@pytest.mark.parametrize("url", [b"ws://h", None, 5])
def test_url_is_a_str(url: object) -> None:
    for parse in (parse_url, parse_proxy_url):
        with pytest.raises(TypeError, match="url must be a str"):
            parse(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "scheme", "port", "secure"),
    [
        ("http://h", "http", 80, False),
        ("https://h/", "https", 443, True),
        ("socks4://h", "socks4", 1080, False),
        ("socks5://h", "socks5", 1080, False),
        ("SOCKS5://h:1", "socks5", 1, False),
        ("socks5h://h", "socks5h", 1080, False),
        ("http://[::1]:3128", "http", 3128, False),
    ],
)
def test_proxy_url(url: str, scheme: str, port: int, secure: bool) -> None:
    parsed = parse_proxy_url(url)
    assert (parsed.scheme, parsed.port, parsed.is_secure) == (scheme, port, secure)


def test_proxy_url_with_user_info() -> None:
    assert parse_proxy_url("socks5://us%3Aer:p%40ss@h").user_info == ("us:er", "p@ss")


@pytest.mark.parametrize(
    "url",
    [
        "h:3128",
        "ws://h",
        "ftp://h",
        "socks://h",
        "http://",
        "http://h:0",
        "http://h/x",
        "http://h?a",
        "http://h#a",
        "http://h /",
    ],
)
def test_proxy_urls_that_are_refused(url: str) -> None:
    with pytest.raises(WSInvalidURL):
        parse_proxy_url(url)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.text("ws:/@[]%?#.1a ä\\-").map("ws://".__add__)))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = parse_url(text)
    except WSInvalidURL:
        return
    assert parsed.resource_name.isascii()
    assert parsed.resource_name[0] == "/"
    assert parsed.host.isascii()
    assert not set(" \r\n\t\0") & set(parsed.resource_name + parsed.host)
    assert 0 < parsed.port < 65536
