# The declarations that all other parts stand on: a connection's states, its fields, and what is asked of them.

# Where a connection is. Each state but the first and the last two is the sum of what still may happen in it:
#
#     HANDSHAKE --------> OPEN --------------- our CLOSE --------------> CLOSE_SENT
#         |       |        |                                                 |
#         |  open_frames   | the peer's CLOSE                                | the peer's CLOSE
#         |                v                                                 v
#         |          CLOSE_RECEIVED ---------- our CLOSE ----------> CLOSE_EXCHANGED
#         |                |                                                 |
#         v                v                                                 v
#         +--------------> LINGERING (from every state before it) <----------+
#                              |
#                              v
#                            CLOSED (from every state)
#
#     our CLOSE         note_close_sent: nothing is sent behind it, frames still come in
#     the peer's CLOSE  note_close_received: nothing is delivered behind it, frames still may go out
#     LINGERING         enter_lingering: disconnect() and abort, the end of the peer's stream, a refused upgrade; nothing is
#                       sent or delivered any more. What waits goes out within its limit (closing.pxi), or is dropped.
#     CLOSED            connection_lost: the transport is gone
#
# Only the functions named here change the state; they stand in states.pxi and, the last one, in protocol.pxi.
cdef enum:
    SENDS = 1
    DELIVERS = 2
    CONNECTED = 4       # the upgrade is done, and nobody has ended the connection

cdef enum State:
    STATE_HANDSHAKE = 0
    STATE_CLOSE_EXCHANGED = CONNECTED
    STATE_CLOSE_RECEIVED = CONNECTED | SENDS
    STATE_CLOSE_SENT = CONNECTED | DELIVERS
    STATE_OPEN = CONNECTED | SENDS | DELIVERS
    STATE_LINGERING = 8
    STATE_CLOSED = 16


cdef class Connection:
    """The fields of one connection. Everything here happens on the thread that `connection_made` was called on.

    References: the asyncio transport holds this object, which holds the WSTransport and the listener until the end of
    the connection; the WSTransport holds this object. `connection_lost` lets go of both, so that no cycle is left.
    """
    cdef:
        readonly WSTransport transport
        readonly WSListener listener
        ConnectionOptions options
        ThreadMemory memory
        object loop

        # receive
        ReadBuffer buffer           # what `reader` stands in; None while nothing incomplete waits
        ReadBuffer lent             # what get_buffer gave out last
        Py_ssize_t large_frame      # the size of the last frame that did not come in one read, 0 after a smaller one
        MessageAssembler messages   # None while the listener wants frames

        # send
        WriteBuffer gathered        # what waits for the end of a burst, or of a cork; None while nothing does
        object deflater             # None: no compression was agreed on
        LatestValues latest         # what waits under keys for a peer that does not keep up; None while nothing does
        bytes pending_pong          # the answer to the last ping, while the peer does not read

        # handshake
        object request              # client: the WSUpgradeRequest to be sent, ...
        object is_secure            # ... and whether its URL says wss; None: what the transport says
        object handshake            # RequestReader, PendingAnswer or ResponseReader, until the upgrade is done
        object upgrade_waiter       # client: a future that tells how the upgrade ended

        # timers and waiters
        object timer                # of the state: handshake, auto ping, closing, lingering
        object stall_timer          # runs while part of a frame is there, if that is bounded
        list disconnect_waiters     # futures, made when somebody waits
        list drain_waiters          # likewise, for room behind what waits to be sent
        tuple end_watchers          # called with the transport when it has ended; None: nobody asked
        object pong_waiter          # a future, made when somebody waits for the reply to a ping
        object roundtrip_lock       # made when a round trip is measured

        WSCloseHandshake shown_before   # what the transport showed of the closing handshake before its last step
        tuple write_buffers         # what tells how much waits where the transport cannot: under TLS, once that was asked
        Reader reader
        Py_ssize_t place            # in the registry of the server
        unsigned long thread_id
        double last_received        # by monotonic(); kept for auto ping, and for how a TLS connection is closed
        double ping_sent
        double roundtrip_time       # of the last ping that was answered, in seconds; NaN before
        double close_reply_since    # since when auto ping waits for the peer's CLOSE, 0: it does not
        double stall_since          # the silence within a frame counts from here at the earliest: reading was paused
        double linger_since         # since when the linger time counts
        double linger_tick          # when its timer was set, or came too late to judge
        Py_ssize_t linger_unsent    # what the peer had not acknowledged then
        # figures, which stats.pxi shows
        uint64_t frames_sent
        uint64_t bytes_sent
        uint64_t frames_received
        uint64_t bytes_received
        unsigned int control_frames_sent
        unsigned int control_frames_received
        unsigned int dropped
        unsigned int replaced
        Py_ssize_t last_queued      # what the transport held when it was last asked
        Py_ssize_t max_queued
        double since                # the wall clock, when the upgrade was done

        uint64_t first_number       # the pings of measure_roundtrip_time carry this number, ...
        uint64_t numbered_pings     # ... and as many were sent, each with the next one
        State state
        int fd
        int corks                   # frames gather while there are any: open cork() blocks, and a burst that is answered
        int telling                 # the listener is in pause_writing or resume_writing
        bint is_client
        bint over_tls               # to the server, or to a proxy before it
        bint direct                 # the socket may be written to
        bint transport_queued       # the transport was given bytes that it may not have written yet
        bint delivering
        bint burst_corked           # one of the corks is that of the burst which is being delivered
        bint closes_when_answered   # close() waits for the peer's CLOSE
        bint in_write               # the transport is writing: what it reports meanwhile is told when our own call is done
        bint writing_paused         # what the transport has reported ...
        bint pause_told             # ... and what the listener knows of it
        uint8_t last_fin            # the FIN bit of the last data frame that was sent; 0: a message is being sent in fragments ...
        bint deflating              # ... and compressed
        bint awaits_pong
        bint awaits_numbered        # measure_roundtrip_time waits for the reply to the last numbered ping
        bint measuring
        bint writing_closed         # lingering: our side was half-closed
        bint linger_stalled         # the last look at it came too late to judge
        bint slow_peer_noted
        bint failed_at_pong         # the exception is from is_user_specific_pong
        bint error_logged           # or a warning: one line of a connection is for all to see
        bint connection_lost_below  # the transport takes writes, and drops them
        unsigned int transport_writes
        bint debug


cdef inline bint can_send(Connection connection) noexcept:
    return connection.state & SENDS != 0


cdef inline bint is_fragmenting(Connection connection) noexcept:
    return connection.last_fin == 0


cdef inline bint close_came(Connection connection) noexcept:
    """Whether the peer has said CLOSE; asked when the state has moved on."""
    cdef WSCloseHandshake shown = connection.transport.close_handshake
    return shown is not None and shown.recv is not None


cdef inline Connection checked_connection(WSTransport transport, str method):
    if transport._connection is None:
        raise RuntimeError(f"WSTransport.{method} was called on a transport without a connection")
    cdef Connection connection = <Connection>transport._connection
    if PyThread_get_thread_ident() != connection.thread_id:
        raise RuntimeError(
            f"WSTransport.{method} was called from thread {PyThread_get_thread_ident()}, "
            f"but the connection belongs to thread {connection.thread_id}")
    return connection
