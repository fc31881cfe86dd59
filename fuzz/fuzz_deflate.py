"""Random bytes for the negotiation of compression and for compressed messages.

Only documented errors escape, limits hold, and what is compressed comes out again however its payload was cut.

    python fuzz/fuzz_deflate.py --seconds 30 [--seed 7]

Valid headers and payloads are damaged at random, from a seed that is printed and can be given again. A failure prints the
input that caused it.
"""

from __future__ import annotations

import contextlib
import random

from damage import run

from picows.deflate import Agreement, Inflater, WSDeflate, accept, check_answer, offer
from picows.errors import WSProtocolError

OPTIONS = 4  # bytes of an input that choose what it is, the settings, the limit and the cuts
HEADER, PAYLOAD, MESSAGE = range(3)
LIMITS = [0, 5, 300, 131072, 2**20]

NAMES = ["permessage-deflate", "server_max_window_bits", "client_max_window_bits", "server_no_context_takeover"]
HEADERS = [
    b"permessage-deflate; client_max_window_bits",
    b'permessage-deflate; server_max_window_bits=10; client_max_window_bits="1\\2", permessage-deflate',
    b"x-other; a=b, permessage-deflate; server_no_context_takeover; client_no_context_takeover\npermessage-deflate",
]
HEADER_PARTS = [*(part.encode() for part in (*NAMES, *";=,\"\\ \t\n\0é", "8", "15", "16", "08", "; ", ", "))]
MESSAGES = [b"", b"Hello", b"Hello, hello, hello. " * 50, bytes(range(256)) * 5, bytes(200_000)]
EMPTY_BLOCKS = [b"\0\0\0\xff\xff", b"\2\0\0\0\xff\xff", b"\3\0", b"\1\0\0\xff\xff", b"\x07", b"\0", b"\0\0\xff\xff"]


def settings_of(choice: int) -> WSDeflate:
    bits = [None, 8, 9, 15][choice % 4]
    return WSDeflate(
        server_max_window_bits=bits,
        client_max_window_bits=[bits, None][choice >> 2 & 1],
        server_no_context_takeover=bool(choice & 8),
        client_no_context_takeover=bool(choice & 16),
        level=choice % 10,
        mem_level=choice % 9 + 1,
    )


def check_header(settings: WSDeflate, data: bytes) -> None:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    try:
        accepted = accept(settings, lines)
    except ValueError:
        pass
    else:
        if accepted is not None:
            answer, agreement = accepted
            # An answer of ours is an answer to somebody who asked for nothing.
            assert check_answer(WSDeflate(), [answer]) is not None
            assert 8 <= agreement.server_max_window_bits <= (settings.server_max_window_bits or 12)
            assert 8 <= agreement.client_max_window_bits <= 15
    with contextlib.suppress(ValueError):
        check_answer(settings, lines)
    assert accept(settings, [offer(settings)]) is not None


def inflate(inflater: Inflater, pieces: list[bytes], limit: int) -> bytes:
    came = b""
    for i, piece in enumerate(pieces):
        came += inflater.inflate(piece, i == len(pieces) - 1, limit - len(came))
        assert len(came) <= limit
    return came


def cut(data: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    places = [0, *sorted(chance.randrange(len(data) + 1) for _ in range(seed % 5)), len(data)]
    return [data[a:b] for a, b in zip(places, places[1:])]


def agreement_of(settings: WSDeflate) -> Agreement:
    accepted = accept(settings, [offer(settings)])
    assert accepted is not None
    return accepted[1]


def check_payload(settings: WSDeflate, data: bytes, limit: int, seed: int) -> None:
    """No verdict on what is inflated depends on the cuts, but which fault of several is found first may."""
    outcomes: list[bytes | None] = []
    # With the largest window: zlib finds what refers back further than a smaller one only across calls.
    agreement = Agreement(settings, 15, 15, settings.server_no_context_takeover, settings.client_no_context_takeover)
    for pieces in ([data], cut(data, seed)):
        inflater = agreement.inflater(False)
        try:
            inflate(inflater, [b"\xf2H\xcd\xc9\xc9\x07\0"], 5)
            outcomes.append(inflate(inflater, pieces, limit))
        except WSProtocolError as exc:
            assert exc.code in (1007, 1008, 1009)
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


def check_message(settings: WSDeflate, data: bytes, seed: int) -> None:
    agreement = agreement_of(settings)
    for is_client in (False, True):
        deflater, inflater = agreement.deflater(is_client), agreement.inflater(not is_client)
        for _ in range(2):
            assert inflate(inflater, cut(deflater.compress(data), seed), len(data)) == data


def check(data: bytes) -> None:
    """The test itself, for one input."""
    if len(data) < OPTIONS:
        return
    settings = settings_of(data[1])
    wire = data[OPTIONS:]
    kind = data[0] % 3
    if kind == HEADER:
        check_header(settings, wire)
    elif kind == PAYLOAD:
        check_payload(settings, wire, LIMITS[data[2] % len(LIMITS)], data[3])
    else:
        check_message(settings, wire, data[3])


def random_input(chance: random.Random) -> bytes:
    kind = chance.choice([HEADER, PAYLOAD, PAYLOAD, MESSAGE])
    options = chance.randrange(32)
    if kind == HEADER:
        data, parts = bytearray(chance.choice(HEADERS)), HEADER_PARTS
    else:
        message = chance.choice(MESSAGES)
        if kind == PAYLOAD:
            message = agreement_of(settings_of(options)).deflater(True).compress(message)
        data, parts = bytearray(message), EMPTY_BLOCKS
    for _ in range(chance.choice([0, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(data) + 1)
        removed = chance.choice([0, 0, 1, 1, 2, 10])
        added = chance.choice([b"", chance.choice(parts), chance.randbytes(chance.choice([1, 2]))])
        data[at : at + removed] = added
    return bytes([kind, options, chance.randrange(5), chance.randrange(256)]) + bytes(data)


if __name__ == "__main__":
    run(__doc__, random_input, check)
