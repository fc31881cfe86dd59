# The figures of connections: those of one, and the sums of a server.

cdef struct Counts:
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t frames_sent
    uint64_t frames_received
    uint64_t control_frames_sent
    uint64_t control_frames_received
    uint64_t dropped
    uint64_t replaced
    Py_ssize_t queued
    Py_ssize_t max_queued


cdef int add_counts(Counts* sums, Connection connection, Py_ssize_t waiting) except -1:
    """`waiting`: the bytes that wait for this connection now."""
    note_queued(connection, waiting)
    sums.bytes_sent += connection.bytes_sent
    sums.bytes_received += connection.bytes_received
    sums.frames_sent += connection.frames_sent
    sums.frames_received += connection.frames_received
    sums.control_frames_sent += connection.control_frames_sent
    sums.control_frames_received += connection.control_frames_received
    sums.dropped += connection.dropped
    sums.replaced += connection.replaced
    sums.queued += waiting
    sums.max_queued = max(sums.max_queued, connection.max_queued)
    return 0


cdef Py_ssize_t waiting_bytes(Connection connection) except -1:
    if connection.state == STATE_CLOSED:
        return 0
    return (queued(connection) if connection.transport_queued else 0) + held(connection)


cdef object connection_stats(Connection connection):
    cdef Counts counts
    memset(&counts, 0, sizeof(counts))
    add_counts(&counts, connection, waiting_bytes(connection))
    return WSStats(
        connection.since, counts.bytes_sent, counts.bytes_received, counts.frames_sent, counts.frames_received,
        counts.control_frames_sent, counts.control_frames_received, counts.queued, counts.max_queued, counts.dropped,
        counts.replaced, connection.roundtrip_time)
