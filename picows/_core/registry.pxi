# Which connections a server has.

@cython.final
cdef class Registry:
    """The connections of one server, as a collection of their transports: their number, iteration over those of now, ``in``.

    A place in a list and its number in the connection: 17 bytes for each. Who leaves gives his place to the last. Only the
    server's loop changes it, but any thread may look: on a free-threaded build each access is a critical section.
    """
    cdef:
        list connections            # in the handshake, open or closing
        Py_ssize_t upgraded         # how many have a listener
        object empty_waiter         # a future, made when somebody waits for the last one to end

    def __cinit__(self):
        self.connections = []

    def __len__(self):
        return self.upgraded

    def __iter__(self):
        return iter(snapshot(self))

    def __contains__(self, transport):
        if not isinstance(transport, WSTransport):
            return False
        cdef Connection connection = <Connection>(<WSTransport>transport)._connection
        return connection is not None and connection.options.registry is self and connection.listener is not None

    def __repr__(self):
        return f"<{self.upgraded} connections of a server>"

    def end_all(self, bint graceful):
        """End every connection: the open ones are told by CLOSE 1001 if `graceful`, those in the handshake are cut."""
        cdef Connection connection
        for connection in every_connection(self):
            if not graceful or connection.listener is None:
                disconnect(connection, False)
            else:
                close_with(connection, WSCloseCode.GOING_AWAY, b"")
                tell_flow(connection)

    async def wait_empty(self):
        """Wait until no connection is left."""
        while self.connections:
            if self.empty_waiter is None:
                self.empty_waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self.empty_waiter)


cdef list every_connection(Registry registry):
    with cython.critical_section(registry):
        return list(registry.connections)


cdef list snapshot(Registry registry):
    cdef Connection connection
    return [connection.transport for connection in every_connection(registry) if connection.listener is not None]


cdef int register(Connection connection) except -1:
    cdef Registry registry = connection.options.registry
    if registry is not None:
        with cython.critical_section(registry):
            connection.place = len(registry.connections)
            registry.connections.append(connection)
    return 0


cdef int note_upgraded(Connection connection) except -1:
    if connection.options.registry is not None:
        connection.options.registry.upgraded += 1
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
    waiter = registry.empty_waiter
    if waiter is not None and not registry.connections:
        registry.empty_waiter = None
        if not waiter.done():
            waiter.set_result(None)
    return 0
