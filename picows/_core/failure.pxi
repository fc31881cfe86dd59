# What a callback raised: kept for wait_disconnected, logged, or left to the event loop.

cdef int note_callback_error(Connection connection, str name, error) except -1:
    """The client's wait_disconnected raises the first one; all others are logged."""
    if isinstance(error, EXIT):
        return exit_loop(connection, error)
    if connection.is_client and connection.transport is not None and keep_error(connection.transport, raisable(name, error)):
        return 0
    if isinstance(error, WSProtocolError):
        # What came was wrong: the listener has judged as it should.
        connection.options.logger.debug("%s raised a WSProtocolError: %s", name, error)
        return 0
    return log_error(connection, f"{name} failed", error)


cdef int log_error(Connection connection, str message, error) except -1:
    if is_first_line(connection):
        connection.options.logger.error(message, exc_info=error)
    else:
        connection.options.logger.debug(message, exc_info=error)
    return 0


cdef bint is_first_line(Connection connection) noexcept:
    """Asked before something is logged that the peer may be the cause of: one line of a connection is for all to see.

    Or it could fill the log, by a message over which the listener stumbles each time.
    """
    if connection.error_logged:
        return False
    connection.error_logged = True
    return True


cdef object raisable(str name, error):
    """What a callback raised, as something that a coroutine of ours may raise in its user.

    A CancelledError would look as if the waiter had been cancelled, and a StopIteration cannot leave a coroutine.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    raised = RuntimeError(f"{name} raised {type(error).__name__}")
    raised.__cause__ = error
    return raised


cdef bint keep_error(WSTransport transport, error) except -1:
    """Keep what wait_disconnected is to raise; whether it is the first.

    The frames of its traceback refer to the listener and the transport, hence to this error: a cycle, so it is kept
    without them.
    """
    if transport._failure is not None:
        return False
    release_frames(error)
    transport._failure = (error, error.__traceback__)
    return True


cdef int exit_loop(Connection connection, error) except -1:
    """What ends the program is no fault of the connection's: the event loop stops by it, in its next turn.

    Now it would reach the transport first, and uvloop's takes it for an error of its own and goes on.
    """
    connection.loop.call_soon(raise_error, error)
    return 0


def raise_error(error):
    raise error
