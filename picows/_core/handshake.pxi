# The opening handshake: from the first byte to on_ws_connected.

# How many bytes may wait behind a request, while a factory that is a coroutine decides, before reading is paused. Reading goes
# on until then, because the end of the client's stream is to be seen.
cdef size_t EARLY_LIMIT = 64 * 1024


cdef int begin_handshake(Connection connection) except -1:
    if connection.options.handshake_timeout is not None:
        connection.timer = connection.loop.call_later(
            connection.options.handshake_timeout, handshake_timer_due, connection)
    if connection.is_client:
        write_head(connection, connection.request.to_bytes())
    return 0


cdef int receive_handshake(Connection connection, ReadBuffer buffer, Py_ssize_t size) except -1:
    """The transport has written `size` bytes of a request or a response into the memory that was lent."""
    cdef Py_ssize_t rest
    if connection.delivering:
        # A loop is run inside of the listener factory: what it reads are frames, for later.
        return keep_received(connection, buffer, size)
    if isinstance(connection.handshake, PendingAnswer):
        keep_received(connection, buffer, size)
        return keep_early(connection)
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
    connection.bytes_received = rest
    connection.delivering = True
    try:
        if connection.is_client:
            accept_response(connection, connection.handshake.response)
        else:
            answer_request(connection)
    finally:
        connection.delivering = False
        if not isinstance(connection.handshake, PendingAnswer):
            connection.handshake = None
    return deliver(connection) if connection.handshake is None else keep_early(connection)


cdef int answer_request(Connection connection) except -1:
    reader = connection.handshake
    connection.transport.request = reader.request
    reader.request._transport = connection.transport.underlying_transport
    try:
        result = connection.options.listener_factory(reader.request)
        if not isinstance(result, (WSListener, WSUpgradeResponseWithListener)) and inspect.isawaitable(result):
            return await_factory(connection, reader, asyncio.ensure_future(result, loop=connection.loop))
    except BaseException as error:
        return factory_failed(connection, reader, error)
    return answer_with(connection, reader, result)


cdef int await_factory(Connection connection, reader, task) except -1:
    """Answer when a listener factory that is a coroutine has decided: within the time limit of the handshake."""
    connection.handshake = PendingAnswer(reader, task)
    task.add_done_callback(functools.partial(factory_done, connection, reader))
    # It may have run a loop before it became a coroutine, and the connection ended in it.
    return cancel_factory(connection) if connection.state != STATE_HANDSHAKE else 0


def factory_done(Connection connection not None, reader, task):
    error = raised_by(task)
    if not isinstance(connection.handshake, PendingAnswer):
        # It was cancelled, and may only have failed to clean up.
        if isinstance(error, Exception):
            log_factory_error(connection, reader, error)
        return
    connection.handshake = reader
    if isinstance(error, EXIT) or cancelled_by_others(task):
        # The loop stops by itself for what a task raises. Whoever cancels all tasks ends the program.
        disconnect(connection, False)
        return
    # As in receive_handshake().
    connection.delivering = True
    try:
        if reader_unread(&connection.reader) > EARLY_LIMIT:
            read_on(connection)
        if error is None:
            answer_with(connection, reader, task.result())
        else:
            factory_failed(connection, reader, error)
    finally:
        connection.delivering = False
        connection.handshake = None
    deliver(connection)


cdef object raised_by(task):
    if not task.cancelled():
        return task.exception()
    try:
        task.result()
    except asyncio.CancelledError as error:
        return error


cdef bint cancelled_by_others(task) except -1:
    """Whether somebody wanted the task itself to end: it did not just pass on what it met. Python 3.10 cannot tell."""
    return task.cancelled() and getattr(task, "cancelling", int)() > 0


cdef int keep_early(Connection connection) except -1:
    """Keep what came behind a request that waits for its answer in a block of its size, and not too much."""
    cdef:
        ReadBuffer buffer = connection.buffer
        ReadBuffer own = None
        size_t unread = reader_unread(&connection.reader)
    if buffer is None:
        return 0
    if unread:
        own = ReadBuffer(<Py_ssize_t>unread)
        reader_attach(&connection.reader, own.data, unread)
    else:
        connection.reader.data = NULL
        connection.reader.capacity = connection.reader.start = connection.reader.end = 0
    connection.buffer = own
    give_back(connection.memory, buffer, connection.loop)
    if unread > EARLY_LIMIT:
        pause_reading(connection)
    return 0


cdef int pause_reading(Connection connection) except -1:
    try:
        connection.transport.underlying_transport.pause_reading()
    except (AttributeError, NotImplementedError):
        disconnect(connection, False)   # one that somebody else made need not be able to
    except RuntimeError:
        pass                            # it is closing
    return 0


cdef int answer_with(Connection connection, reader, result) except -1:
    """Send the answer that is the result of the listener factory."""
    cdef WSTransport transport = connection.transport
    # The factory may have run a loop, and the connection ended in it.
    if connection.state != STATE_HANDSHAKE:
        return 0
    try:
        response, head, listener = answer(reader, result)
        if listener is not None and not isinstance(listener, WSListener):
            raise TypeError(
                f"the listener factory returned a {type(listener).__name__}, expected a WSListener, "
                "a WSUpgradeResponseWithListener or None")
    except BaseException as error:
        return factory_failed(connection, reader, error)
    transport.response = response
    write_head(connection, head)
    return disconnect(connection, True) if listener is None else begin_frames(connection, listener)


cdef int factory_failed(Connection connection, reader, error) except -1:
    if isinstance(error, EXIT):
        exit_loop(connection, error)
        return disconnect(connection, False)
    log_factory_error(connection, reader, error)
    return answer_with(connection, reader, error_response(500, b"Internal Server Error"))


cdef int log_factory_error(Connection connection, reader, error) except -1:
    # Not the query, which may hold tokens.
    connection.options.logger.error("the listener factory failed for a request of %r", reader.request.target_path, exc_info=error)
    return 0


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
    # As in answer_with().
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
    elif isinstance(connection.handshake, PendingAnswer):
        return factory_too_late(connection)
    elif connection.debug:
        connection.options.logger.log(PICOWS_DEBUG_LL, "the client did not finish the opening handshake in time")
    disconnect(connection, False)


cdef int factory_too_late(Connection connection) except -1:
    reader = (<PendingAnswer>connection.handshake).reader
    connection.options.logger.info(
        "the listener factory did not decide about a request of %r within %s seconds of its connection",
        reader.request.target_path, connection.options.handshake_timeout)
    return refuse_for_now(connection, reader)


cdef int refuse_for_now(Connection connection, reader) except -1:
    cancel_factory(connection)
    return answer_with(connection, reader, error_response(503, b"Service Unavailable"))


def refuse_handshakes(Registry registry not None):
    """End the opening handshakes of a server, those that are under way and those to come, and leave the open connections alone.

    Who waits for the decision of a listener factory gets 503, others are cut.
    """
    cdef Connection connection
    registry.refuses = True
    for connection in every_connection(registry):
        if connection.state != STATE_HANDSHAKE:
            continue
        if isinstance(connection.handshake, PendingAnswer):
            refuse_for_now(connection, (<PendingAnswer>connection.handshake).reader)
        else:
            disconnect(connection, False)


cdef inline bint awaits_upgrade(Connection connection):
    return connection.upgrade_waiter is not None and not connection.upgrade_waiter.done()


cdef void set_exception(object waiter, object error):
    if waiter is not None and not waiter.done():
        waiter.set_exception(error)
        # Whoever gave up waiting is not told by the garbage collector.
        waiter.exception()


cdef object error_response(int status, bytes body):
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, body), None)
