"""What connections and servers tell of themselves in figures."""

from __future__ import annotations

from typing import NamedTuple


class WSStats(NamedTuple):
    """What a connection has done so far, by :meth:`WSTransport.stats`.

    Bytes are those of WebSocket frames with their headers, compressed where they are: without the
    opening handshake, and without TLS. A fragment is a frame.
    """

    since: float
    """When the opening handshake was done, in seconds of the wall clock, as :func:`time.time`
    tells it; 0 before."""
    bytes_sent: int
    """Whether the peer has taken them yet or not; what is gathered, or waits under keys, is not sent yet."""
    bytes_received: int
    """Part of a frame counts, too."""
    frames_sent: int
    """Control frames included."""
    frames_received: int
    """Control frames included."""
    control_frames_sent: int
    """CLOSE, PING and PONG, those that picows sends by itself included."""
    control_frames_received: int
    """CLOSE, PING and PONG."""
    queued: int
    """Bytes that wait now: :attr:`WSTransport.write_buffer_size`."""
    max_queued: int
    """The most of them so far. Over TLS it is looked at when something is asked of what waits, and
    when the high-water mark is passed, not at every frame."""
    dropped: int
    """Messages that `max_write_buffer_size` had no room for."""
    replaced: int
    """Messages of :meth:`WSTransport.send_latest` that gave their place to a newer one."""
    roundtrip_time: float
    """Between the last ping that was answered and its PONG, in seconds; NaN before the first:
    of auto ping, and of :meth:`WSTransport.measure_roundtrip_time`."""


class WSServerStats(NamedTuple):
    """What a server has done so far, by :meth:`WSServer.stats`.

    Bytes and frames are sums over all connections, those that have ended included; what they mean
    is said at :class:`WSStats`.
    """

    since: float
    """When the server was made, in seconds of the wall clock, as :func:`time.time` tells it."""
    connections: int
    """How many there are now."""
    handshakes: int
    """How many are in the opening handshake now."""
    total_connections: int
    """How many have been upgraded so far."""
    not_upgraded: int
    """How many have ended before: refused, cut or timed out, or answered as plain HTTP requests."""
    bytes_sent: int
    bytes_received: int
    frames_sent: int
    frames_received: int
    control_frames_sent: int
    control_frames_received: int
    queued: int
    """Bytes that wait now for all clients."""
    max_queued: int
    """The most that has waited for one client."""
    dropped: int
    replaced: int
