# Which connections a server has, and how all of them end.

@cython.final
cdef class Registry:
    """The connections of one server, as a collection of their transports: their number, iteration over those of now, ``in``.

    A transport is in it from just before ``on_ws_connected`` until just before ``on_ws_disconnected``: one that is being
    closed still counts, for it still holds its socket.

    A place in a list and its number in the connection: 17 bytes for each. Who leaves gives his place to the last. Only the
    server's loop changes it, but any thread may look: on a free-threaded build each access to the list is a critical section,
    and a number that is read meanwhile is that of a moment ago.
    """
    cdef:
        list connections            # in the handshake, open or closing
        Py_ssize_t upgraded         # how many have a listener
        Py_ssize_t total            # how many ever had one
        Py_ssize_t not_upgraded     # how many have ended without
        Counts ended                # the sums of those that have ended
        double since                # the wall clock, when it was made
        bint refuses                # who still comes, out of a TLS handshake, comes too late

    def __cinit__(self):
        self.connections = []
        self.since = time()

    def __len__(self):
        return self.upgraded

    def __iter__(self):
        return iter(snapshot(self))

    def __contains__(self, transport):
        if not isinstance(transport, WSTransport):
            return False
        cdef Connection connection = <Connection>(<WSTransport>transport)._connection
        return (connection is not None and connection.options.registry is self and connection.listener is not None
                and connection.state != STATE_CLOSED)

    def __repr__(self):
        return f"<{self.upgraded} connections of a server>"


def end_connections(Registry registry not None, bint graceful, bint refuse):
    """End every connection of a server.

    :param graceful: whether those that are open are told by CLOSE 1001 and get what was sent before; those in the handshake,
        who have nothing to wait for, are cut in any case
    :param refuse: whether connections that come from now on are cut, too
    :raises RuntimeError: when they belong to another thread; nothing is ended
    """
    cdef:
        Connection connection
        list connections = every_connection(registry)
    check_thread(connections, "the connections of a server were to be ended")
    registry.refuses = refuse
    for connection in connections:
        if not graceful or connection.state == STATE_HANDSHAKE:
            disconnect(connection, False)
        else:
            close_with(connection, WSCloseCode.GOING_AWAY, b"")
            tell_flow(connection)


def server_stats(Registry registry not None):
    """The sums over all connections, and how many there are.

    :raises RuntimeError: when they belong to another thread
    """
    cdef:
        Connection connection
        Counts sums = registry.ended
        list connections = every_connection(registry)
    check_thread(connections, "the figures of a server were asked for")
    for connection in connections:
        add_counts(&sums, connection, waiting_bytes(connection))
    return WSServerStats(
        registry.since, registry.upgraded, len(connections) - registry.upgraded, registry.total, registry.not_upgraded,
        sums.bytes_sent, sums.bytes_received, sums.frames_sent, sums.frames_received, sums.control_frames_sent,
        sums.control_frames_received, sums.queued, sums.max_queued, sums.dropped, sums.replaced)


cdef int check_thread(list connections, str what) except -1:
    cdef:
        Connection connection
        unsigned long thread_id = PyThread_get_thread_ident()
    for connection in connections:
        if connection.thread_id != thread_id:
            raise RuntimeError(f"{what} from thread {thread_id}, but its connections belong to thread {connection.thread_id}")
    return 0


@cython.binding(True)
async def wait_ended(Registry registry not None):
    """Wait until the connections that are being closed now have ended."""
    cdef Connection connection
    for connection in every_connection(registry):
        if connection.state == STATE_LINGERING:
            await wait_closed(connection)


cdef list every_connection(Registry registry):
    with cython.critical_section(registry):
        return list(registry.connections)


cdef list snapshot(Registry registry):
    # Inside of the critical section: a connection lets go of its transport only after it has left the list.
    cdef Connection connection
    with cython.critical_section(registry):
        return [connection.transport for connection in registry.connections if connection.listener is not None]


cdef int register(Connection connection) except -1:
    cdef Registry registry = connection.options.registry
    if registry is None:
        return 0
    with cython.critical_section(registry):
        connection.place = len(registry.connections)
        registry.connections.append(connection)
    return disconnect(connection, False) if registry.refuses else 0


cdef bint is_registered(Connection connection) except -1:
    """Whether it has its place, if there is a registry to have one in."""
    cdef Registry registry = connection.options.registry
    if registry is None:
        return True
    with cython.critical_section(registry):
        return connection.place < len(registry.connections) and registry.connections[connection.place] is connection


cdef int note_upgraded(Connection connection) except -1:
    if connection.options.registry is not None:
        connection.options.registry.upgraded += 1
        connection.options.registry.total += 1
    return 0


cdef int unregister(Connection connection) except -1:
    cdef:
        Registry registry = connection.options.registry
        Connection last
    if registry is None:
        return 0
    with cython.critical_section(registry):
        last = <Connection>registry.connections.pop()
        if last is not connection:
            registry.connections[connection.place] = last
            last.place = connection.place
        registry.upgraded -= connection.listener is not None
        registry.not_upgraded += connection.listener is None
    return add_counts(&registry.ended, connection, 0)
