# The opening handshake: from the first byte to on_ws_connected.

cdef int begin_handshake(Connection connection) except -1:
    if connection.options.handshake_timeout is not None:
        connection.timer = connection.loop.call_later(
            connection.options.handshake_timeout, handshake_timer_due, connection)
    if connection.is_client:
        connection.upgrade_waiter = connection.loop.create_future()
        write_head(connection, connection.request.to_bytes())
    return 0


cdef int receive_handshake(Connection connection, ReadBuffer buffer, Py_ssize_t size) except -1:
    """The transport has written `size` bytes of a request or a response into the memory that was lent."""
    cdef Py_ssize_t rest
    if connection.delivering:
        # A loop is run inside of the listener factory: what it reads are frames, for later.
        return keep_received(connection, buffer, size)
    buffer.lent_size = 0
    data = PyBytes_FromStringAndSize(<char*>buffer.data + buffer.lent_from, size)
    try:
        if not connection.handshake.feed(data):
            return 0
    except WSHandshakeError as error:
        return refuse_upgrade(connection, error)
    # Frames may have come with the head. They lie at the end of what was received, and are next, whatever the user's
    # callbacks do meanwhile.
    rest = len(connection.handshake.rest)
    take(connection.memory, buffer)
    connection.buffer = buffer
    connection.reader.data = buffer.data
    connection.reader.capacity = buffer.capacity
    connection.reader.end = buffer.lent_from + size
    connection.reader.start = connection.reader.end - rest
    connection.delivering = True
    try:
        if connection.is_client:
            accept_response(connection, connection.handshake.response)
        else:
            answer_request(connection)
    finally:
        connection.delivering = False
        connection.handshake = None
    return deliver(connection)


cdef int answer_request(Connection connection) except -1:
    cdef WSTransport transport = connection.transport
    handshake = connection.handshake
    transport.request = handshake.request
    listener = None
    try:
        result = connection.options.listener_factory(transport.request)
        response, head, listener = answer(handshake, result)
        if listener is not None and not isinstance(listener, WSListener):
            raise TypeError(
                f"the listener factory returned a {type(listener).__name__}, expected a WSListener, "
                "a WSUpgradeResponseWithListener or None")
    except BaseException as error:
        if isinstance(error, EXIT):
            exit_loop(connection, error)
            disconnect(connection, False)
            return 0
        connection.options.logger.exception("the listener factory failed for a request of %r", transport.request.path)
        listener = None
        response, head, _ = answer(handshake, failed_factory_result())
    # The factory may have run a loop, and the connection ended in it.
    if connection.state != STATE_HANDSHAKE:
        return 0
    transport.response = response
    write_head(connection, head)
    return disconnect(connection, True) if listener is None else begin_frames(connection, listener)


cdef int accept_response(Connection connection, response) except -1:
    connection.transport.response = response
    try:
        listener = connection.options.listener_factory(connection.transport.request, response)
        if not isinstance(listener, WSListener):
            raise TypeError(f"the listener factory returned a {type(listener).__name__}, expected a WSListener")
    except BaseException as error:
        if isinstance(error, EXIT):
            exit_loop(connection, error)
        set_exception(connection.upgrade_waiter, raisable("the listener factory", error))
        disconnect(connection, False)
        return 0
    # As in answer_request().
    return begin_frames(connection, listener) if connection.state == STATE_HANDSHAKE else 0


cdef int begin_frames(Connection connection, WSListener listener) except -1:
    if connection.options.assemble_messages:
        start_messages(connection, connection.handshake.agreement)
    open_frames(connection, listener)
    note_upgraded(connection)
    start_auto_ping(connection)
    # Before the callback, which may run a loop and sees ws_connect return in it: the upgrade is over.
    if awaits_upgrade(connection):
        connection.upgrade_waiter.set_result(None)
    try:
        listener.on_ws_connected(connection.transport)
    except BaseException as error:
        callback_failed(connection, "on_ws_connected", error)
    return 0


cdef int refuse_upgrade(Connection connection, error) except -1:
    if connection.is_client:
        set_exception(connection.upgrade_waiter, error)
        return disconnect(connection, False)
    if connection.debug:
        connection.options.logger.log(PICOWS_DEBUG_LL, "request refused: %s", error)
    connection.transport.response = error.response
    write_head(connection, error.response.to_bytes())
    return disconnect(connection, True)


cdef int fail_upgrade(Connection connection, exc) except -1:
    if exc is None:
        try:
            connection.handshake.feed_eof()
        except WSError as error:
            exc = error
    set_exception(connection.upgrade_waiter, exc)
    return 0


def handshake_timer_due(Connection connection not None, bint has_read=False):
    if not has_read:
        connection.timer = OneMoreTurn(connection, handshake_timer_due)
        return
    connection.timer = None
    if awaits_upgrade(connection):
        set_exception(connection.upgrade_waiter, asyncio.TimeoutError(
            f"the server did not finish the opening handshake within {connection.options.handshake_timeout} seconds"))
    elif connection.debug:
        connection.options.logger.log(PICOWS_DEBUG_LL, "the client did not finish the opening handshake in time")
    disconnect(connection, False)


cdef inline bint awaits_upgrade(Connection connection):
    return connection.upgrade_waiter is not None and not connection.upgrade_waiter.done()


cdef void set_exception(object waiter, object error):
    if waiter is not None and not waiter.done():
        waiter.set_exception(error)
        # Whoever gave up waiting is not told by the garbage collector.
        waiter.exception()


cdef object failed_factory_result():
    return WSUpgradeResponseWithListener(
        WSUpgradeResponse.create_error_response(500, b"Internal Server Error"), None)
