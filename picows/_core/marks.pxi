# Marks of the transport's buffer: the listener is told that they were crossed, when nothing of ours is half done.

cdef inline int tell_flow(Connection connection) except -1:
    """The end of every call of ours that may have written: the transport may have reported something meanwhile.

    Transports call pause_writing, those over TLS resume_writing too, from inside of their write(). The listener may do
    anything there, so it is told only now, when nothing of ours is half done.
    """
    if connection.writing_paused != connection.pause_told:
        tell_listener_of_flow(connection)
    return 0


cdef int tell_listener_of_flow(Connection connection) except -1:
    cdef:
        WSListener listener = connection.listener
        str name
    while (connection.writing_paused != connection.pause_told and listener is not None
            and connection.state != STATE_CLOSED):
        # Whoever is producing inside of resume_writing has to be stopped at once. To go on can wait until the callback
        # that is running has returned, or callbacks would nest without end.
        if connection.telling and not connection.writing_paused:
            return 0
        if not connection.writing_paused:
            send_pending_pong(connection)
            if connection.writing_paused:
                continue
        elif not connection.slow_peer_noted and not overrides(listener, "pause_writing"):
            connection.slow_peer_noted = True
            connection.options.logger.info(
                "the peer is slow: %d bytes wait to be sent; override pause_writing to stop producing meanwhile",
                queued(connection))
        connection.pause_told = connection.writing_paused
        name = "pause_writing" if connection.pause_told else "resume_writing"
        connection.telling += 1
        try:
            if connection.pause_told:
                listener.pause_writing()
            else:
                listener.resume_writing()
        except BaseException as error:
            callback_failed(connection, name, error)
        finally:
            connection.telling -= 1
    return 0


cdef int send_pending_pong(Connection connection) except -1:
    cdef bytes payload = connection.pending_pong
    connection.pending_pong = None
    if payload is not None and can_send(connection):
        send_frame(connection, FIN_BIT | WSMsgType.PONG, <const uint8_t*>PyBytes_AS_STRING(payload),
                   PyBytes_GET_SIZE(payload))
    return 0
