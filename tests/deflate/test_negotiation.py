"""Who offers, answers and refuses what (RFC 7692 section 7.1, RFC 6455 section 9.1)."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picows.deflate import Agreement, WSDeflate, accept, check_answer, offer

NAME = "permessage-deflate"
SMALL = WSDeflate(server_max_window_bits=9, client_max_window_bits=10)
LARGE = WSDeflate(server_max_window_bits=15, client_max_window_bits=15)
FORGETFUL = WSDeflate(server_no_context_takeover=True, client_no_context_takeover=True)

# What neither an offer nor an answer may say.
INVALID = [
    "unknown",
    "unknown=1",
    "Server_no_context_takeover",
    "SERVER_MAX_WINDOW_BITS=10",
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; server_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits=10; server_max_window_bits=10",
    "client_max_window_bits=10; client_max_window_bits=11",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    'client_no_context_takeover="x"',
    "server_max_window_bits",
    *(f"{side}_max_window_bits={value}" for side in ("server", "client") for value in ("7", "16", "0", "08", "8.0", "+8", "-8")),
    "server_max_window_bits=9x",
    "client_max_window_bits=0x9",
    'client_max_window_bits="16"',
]

# What is no list of extensions at all.
BROKEN = [
    ";",
    "=",
    "permessage-deflate;",
    "permessage-deflate; ;",
    "permessage-deflate; client_max_window_bits=",
    "permessage-deflate; =10",
    "permessage-deflate client_max_window_bits",
    "permessage-deflate; client_max_window_bits 10",
    "permessage-deflate; client_max_window_bits==10",
    'permessage-deflate; client_max_window_bits="10',
    'permessage-deflate; client_max_window_bits="10\\"',
    'permessage-deflate; client_max_window_bits=""',
    'permessage-deflate; client_max_window_bits="1 0"',
    'permessage-deflate; client_max_window_bits="10"1',
    "permessage-deflate; client_max_window_bits=é",
    "permessage-deflate; client_max_window_bits=\u0661\u0660",
    "permessage-deflate\r\n",
    "permessage/deflate",
    '"permessage-deflate"',
    "x-other; a=[1], permessage-deflate",
    "permessage-deflate, x-other;",
]


def agreed(agreement: Agreement) -> tuple[int, int, bool, bool]:
    return (
        agreement.server_max_window_bits,
        agreement.client_max_window_bits,
        agreement.server_no_context_takeover,
        agreement.client_no_context_takeover,
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (WSDeflate(), "client_max_window_bits"),
        (SMALL, "server_max_window_bits=9; client_max_window_bits=10"),
        (LARGE, "server_max_window_bits=15; client_max_window_bits=15"),
        (FORGETFUL, "server_no_context_takeover; client_no_context_takeover; client_max_window_bits"),
        (WSDeflate(server_max_window_bits=8), "server_max_window_bits=8; client_max_window_bits"),
        (WSDeflate(level=1, mem_level=9, min_size=0), "client_max_window_bits"),
    ],
)
def test_offer(settings: WSDeflate, expected: str) -> None:
    assert offer(settings) == f"{NAME}; {expected}"


@pytest.mark.parametrize(
    ("settings", "offered", "answer", "meaning"),
    [
        # No window named: the client's is the largest, the server may still choose its own (7.1.2.1).
        (WSDeflate(), "", "; server_max_window_bits=12", (12, 15, False, False)),
        (LARGE, "", "", (15, 15, False, False)),
        (WSDeflate(server_max_window_bits=8), "", "; server_max_window_bits=8", (8, 15, False, False)),
        # The server's window: the smaller of both, and always answered when it was asked for.
        (WSDeflate(), "; server_max_window_bits=10", "; server_max_window_bits=10", (10, 15, False, False)),
        (WSDeflate(), "; server_max_window_bits=15", "; server_max_window_bits=12", (12, 15, False, False)),
        (LARGE, "; server_max_window_bits=15", "; server_max_window_bits=15", (15, 15, False, False)),
        (LARGE, "; server_max_window_bits=8", "; server_max_window_bits=8", (8, 15, False, False)),
        (LARGE, '; server_max_window_bits="11"', "; server_max_window_bits=11", (11, 15, False, False)),
        # The client's window is answered only where it was offered (7.1.2.2).
        (LARGE, "; client_max_window_bits", "", (15, 15, False, False)),
        (LARGE, "; client_max_window_bits=15", "", (15, 15, False, False)),
        (LARGE, "; client_max_window_bits=9", "; client_max_window_bits=9", (15, 9, False, False)),
        (
            WSDeflate(),
            "; client_max_window_bits",
            "; server_max_window_bits=12; client_max_window_bits=12",
            (12, 12, False, False),
        ),
        (
            SMALL,
            "; client_max_window_bits=15",
            "; server_max_window_bits=9; client_max_window_bits=10",
            (9, 10, False, False),
        ),
        (
            SMALL,
            "; client_max_window_bits=8; server_max_window_bits=8",
            "; server_max_window_bits=8; client_max_window_bits=8",
            (8, 8, False, False),
        ),
        # Either flag holds when one side wants it.
        (LARGE, "; server_no_context_takeover", "; server_no_context_takeover", (15, 15, True, False)),
        (LARGE, "; client_no_context_takeover", "; client_no_context_takeover", (15, 15, False, True)),
        (
            FORGETFUL,
            "; client_max_window_bits=11",
            "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=11",
            (12, 11, True, True),
        ),
        # Blanks, quotes and escapes (RFC 6455 section 9.1)
        (LARGE, ' ;\tserver_max_window_bits \t= "1\\0"\t; client_no_context_takeover ', None, (10, 15, False, True)),
    ],
)
def test_accept(settings: WSDeflate, offered: str, answer: str | None, meaning: tuple[int, int, bool, bool]) -> None:
    accepted = accept(settings, [NAME + offered])
    assert accepted is not None
    if answer is not None:
        assert accepted[0] == NAME + answer
    assert agreed(accepted[1]) == meaning
    assert accepted[1].settings is settings


@pytest.mark.parametrize("parameters", INVALID)
def test_an_invalid_offer_is_declined(parameters: str) -> None:
    assert accept(WSDeflate(), [f"{NAME}; {parameters}"]) is None


def test_a_client_that_cannot_be_limited_is_declined_when_a_limit_is_set() -> None:
    assert accept(SMALL, [NAME]) is None
    assert accept(SMALL, [f"{NAME}; server_max_window_bits=9"]) is None
    assert accept(SMALL, [f"{NAME}; client_max_window_bits"]) is not None


@pytest.mark.parametrize("headers", [[], [""], [" ,\t, "], ["x-other"], ["PERMESSAGE-DEFLATE"], ["x-webkit-deflate-frame, a; b=c"]])
def test_nothing_to_accept(headers: list[str]) -> None:
    assert accept(WSDeflate(), headers) is None


@pytest.mark.parametrize(
    ("headers", "server_bits"),
    [
        ([f"{NAME}; server_max_window_bits=9, {NAME}; server_max_window_bits=10"], 9),
        ([f"{NAME}; server_max_window_bits=9", f"{NAME}; server_max_window_bits=10"], 9),
        ([f"{NAME}; unknown, {NAME}; server_max_window_bits=10"], 10),
        ([f"{NAME}; server_max_window_bits=16", f"{NAME}; server_max_window_bits=10"], 10),
        ([f'x-other; a="b"; c, {NAME}; server_max_window_bits=10'], 10),
        ([f"x-other, , {NAME}; server_max_window_bits=10,", "x-other"], 10),
        (["", f",{NAME};server_max_window_bits=10,{NAME}"], 10),
    ],
)
def test_the_first_good_offer_is_taken(headers: list[str], server_bits: int) -> None:
    accepted = accept(WSDeflate(), headers)
    assert accepted is not None
    assert accepted[1].server_max_window_bits == server_bits


@pytest.mark.parametrize("header", BROKEN)
def test_a_broken_header(header: str) -> None:
    for headers in ([header], ["x-other", header]):
        with pytest.raises(ValueError, match=r"^it must be a list of 'name; parameter=value': received .* at position \d+ of "):
            accept(WSDeflate(), headers)
        with pytest.raises(ValueError, match=r"^it must be a list of "):
            check_answer(WSDeflate(), headers)


def test_long_headers_take_no_long_time() -> None:
    for header in (NAME + " " * 16000 + "x", NAME + "; a" * 5000 + ";", f'{NAME}; a="{"b" * 16000}', "," * 16000 + ";"):
        with pytest.raises(ValueError, match=r"^it must be a list of "):
            accept(WSDeflate(), [header] * 10)


@pytest.mark.parametrize(
    ("settings", "answer", "meaning"),
    [
        (WSDeflate(), "", (15, 12, False, False)),
        (LARGE, "; server_max_window_bits=15", (15, 15, False, False)),
        (LARGE, "; server_max_window_bits=8", (8, 15, False, False)),
        (LARGE, "", (15, 15, False, False)),  # not named, it is the largest
        (WSDeflate(), "; server_max_window_bits=13", (13, 12, False, False)),
        (WSDeflate(), "; client_max_window_bits=15", (15, 12, False, False)),
        (WSDeflate(), '; client_max_window_bits = "8"', (15, 8, False, False)),
        (SMALL, "; server_max_window_bits=9; client_max_window_bits=10", (9, 10, False, False)),
        (SMALL, "; server_max_window_bits=8; client_max_window_bits=8", (8, 8, False, False)),
        # The client keeps to what its offer announced, answered or not (7.1.1.2, 7.1.2.2).
        (SMALL, "; server_max_window_bits=9", (9, 10, False, False)),
        (FORGETFUL, "; server_no_context_takeover", (15, 12, True, True)),
        # A server may say these unasked.
        (WSDeflate(), "; server_no_context_takeover", (15, 12, True, False)),
        (WSDeflate(), "; client_no_context_takeover", (15, 12, False, True)),
    ],
)
def test_answer(settings: WSDeflate, answer: str, meaning: tuple[int, int, bool, bool]) -> None:
    agreement = check_answer(settings, [NAME + answer])
    assert agreement is not None
    assert agreed(agreement) == meaning


@pytest.mark.parametrize("headers", [[], [""], [", "]])
def test_no_answer(headers: list[str]) -> None:
    assert check_answer(WSDeflate(), headers) is None


@pytest.mark.parametrize("parameters", [*INVALID, "client_max_window_bits"])
def test_an_invalid_answer(parameters: str) -> None:
    with pytest.raises(ValueError, match=r"(is no parameter|takes no value|once only|must be a number|needs a value).*: received"):
        check_answer(WSDeflate(), [f"{NAME}; {parameters}"])


@pytest.mark.parametrize(
    ("settings", "headers", "expected"),
    [
        (WSDeflate(), ["x-other"], "permessage-deflate is expected, and nothing else: received 'x-other'"),
        (WSDeflate(), ["Permessage-Deflate"], "permessage-deflate is expected, and nothing else"),
        (WSDeflate(), [f"{NAME}, {NAME}"], "nothing else: received 'permessage-deflate, permessage-deflate'"),
        (WSDeflate(), [NAME, NAME], "nothing else: received 'permessage-deflate', 'permessage-deflate'"),
        (WSDeflate(), [NAME, "x-other"], "nothing else"),
        (SMALL, [NAME], "server_max_window_bits of 9 or less is expected: received 'permessage-deflate'"),
        (SMALL, [f"{NAME}; server_max_window_bits=10"], "server_max_window_bits of 9 or less is expected"),
        (
            SMALL,
            [f"{NAME}; server_max_window_bits=9; client_max_window_bits=11"],
            "client_max_window_bits of 10 or less is expected",
        ),
        (FORGETFUL, [f"{NAME}; client_no_context_takeover"], "server_no_context_takeover was asked for and is expected"),
    ],
)
def test_an_answer_to_no_offer_of_ours(settings: WSDeflate, headers: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        check_answer(settings, headers)


windows = st.none() | st.integers(8, 15)
all_settings = st.builds(
    WSDeflate,
    server_max_window_bits=windows,
    client_max_window_bits=windows,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(all_settings, all_settings)
def test_our_client_and_our_server_agree(client: WSDeflate, server: WSDeflate) -> None:
    accepted = accept(server, [offer(client)])
    assert accepted is not None
    answer, of_server = accepted
    of_client = check_answer(client, [answer])
    assert of_client is not None
    assert of_server.server_max_window_bits == of_client.server_max_window_bits
    # What a client that was not told does, is only known to itself; the server is prepared for more.
    assert of_server.client_max_window_bits >= of_client.client_max_window_bits
    assert of_server.server_no_context_takeover is of_client.server_no_context_takeover
    assert of_server.client_no_context_takeover is of_client.client_no_context_takeover
    for limit, bits in (
        (client.server_max_window_bits, of_client.server_max_window_bits),
        (server.server_max_window_bits, of_server.server_max_window_bits),
        (client.client_max_window_bits, of_client.client_max_window_bits),
        (server.client_max_window_bits, of_server.client_max_window_bits),
    ):
        assert limit is None or bits <= limit


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([NAME, "x", ";", "; ", "=", ",", " ", '"', "\\", "10", *(text.split("=")[0] for text in INVALID)])))
def test_any_header_is_taken_declined_or_broken(parts: list[str]) -> None:
    header = "".join(parts)
    for read in (accept, check_answer):
        with contextlib.suppress(ValueError):
            read(WSDeflate(), [header])


def test_order_of_parameters_does_not_matter() -> None:
    parameters = [f"{side}_{rule}" for side in ("server", "client") for rule in ("max_window_bits=9", "no_context_takeover")]
    chance = random.Random(1)
    for _ in range(24):
        chance.shuffle(parameters)
        header = "; ".join([NAME, *parameters])
        agreement = check_answer(WSDeflate(), [header])
        accepted = accept(WSDeflate(), [header])
        assert agreement is not None
        assert accepted is not None
        assert agreed(agreement) == agreed(accepted[1]) == (9, 9, True, True)
