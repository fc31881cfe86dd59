# A connection that somebody else has accepted.

def adopt(AsyncioProtocol connection not None, underlying, request):
    """Go on where another protocol of `underlying` has got to; returns the transport.

    :param connection: is the transport's protocol already
    :param request: a view of the bytes that were read: the request and what came behind it, or part of it
    """
    cdef:
        WSTransport transport
        ReadBuffer buffer
    connection.connection_made(underlying)
    transport = connection.transport
    # What the other one has written may still wait there; what we write goes behind it.
    connection.transport_queued = True
    connection.writing_paused = has_paused(underlying)
    read_on(connection)
    if len(request):
        # All of it at once: nothing that a callback lets the loop read may come between.
        buffer = connection.lent = ReadBuffer(len(request))
        buffer.lent_size = len(request)
        memoryview(buffer)[:] = request
        connection.buffer_updated(len(request))
    tell_flow(connection)
    return transport


def adopt_upgraded(AsyncioProtocol connection not None, underlying, reader, bytes head not None, WSListener listener not None):
    """Go on behind a request that somebody else has read and checked; it is answered by `head`, a 101, and frames come next.

    :param connection: is the transport's protocol already
    :param reader: what has read the request, a RequestReader
    """
    connection.connection_made(underlying)
    connection.transport_queued = True
    connection.writing_paused = has_paused(underlying)
    connection.handshake = reader
    write_head(connection, head)
    begin_frames(connection, listener)
    connection.handshake = None
    read_on(connection)
    tell_flow(connection)


cdef bint has_paused(underlying) except -1:
    """Whether the transport has told its former protocol to pause."""
    try:
        return underlying.get_write_buffer_size() > underlying.get_write_buffer_limits()[1]
    except (AttributeError, RuntimeError):
        return False    # it cannot tell, as asyncio's TLS before 3.11
