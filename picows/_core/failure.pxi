# What a callback raised: kept for wait_disconnected, logged, or left to the event loop.

cdef int note_callback_error(Connection connection, str name, error) except -1:
    """The client's wait_disconnected raises the first one; all others are logged."""
    if isinstance(error, EXIT):
        exit_loop(connection, error)
    elif (not connection.is_client or connection.transport is None
            or not keep_error(connection.transport, raisable(name, error))):
        connection.options.logger.error("%s failed", name, exc_info=error)
    return 0


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
