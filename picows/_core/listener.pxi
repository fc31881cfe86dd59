# WSListener: what a user derives from.

cdef class WSListener:
    """The callbacks of one connection: derive from it and override what is of interest.

    Callbacks are plain functions, called on the thread of the connection's event loop. They are looked up anew for each
    burst of received data, not for each frame.

    An exception from a callback sends CLOSE with `WSCloseCode.INTERNAL_ERROR`, or with the code and reason of a
    `WSProtocolError`, and disconnects. On the client side `WSTransport.wait_disconnected` raises it again, on the server
    side it is logged: a `WSProtocolError` as one line at DEBUG, the first other one at ERROR. With
    ``disconnect_on_exception=False`` an exception from :meth:`on_ws_frame` is only logged, unless it is a `WSProtocolError`.
    """

    cpdef on_ws_connected(self, WSTransport transport):
        """Called once, when the opening handshake is done.

        :param transport: the connection, for as long as it lives
        """

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        """Called for each received frame, control frames too.

        A CLOSE frame is the last one. When this has returned it is answered by the same code and reason, and the connection
        ends, unless `WSTransport.send_close` or `WSTransport.disconnect` was called here. With ``enable_auto_close=False`` it
        is for the listener to call them, here or later.

        :param transport: the connection
        :param frame: the frame, valid inside this call only
        """

    cpdef on_ws_disconnected(self, WSTransport transport):
        """Called once, when the connection has ended, for whatever reason, after :meth:`on_ws_connected`.

        :param transport: the connection; nothing can be sent any more
        """

    cpdef send_user_specific_ping(self, WSTransport transport):
        """Called to send a ping, by auto ping and by `WSTransport.measure_roundtrip_time`.

        Override it to send another message than a PING frame.
        """
        if transport is None:
            raise TypeError("transport is None, expected a WSTransport")
        transport.send_ping()

    cpdef is_user_specific_pong(self, WSFrame frame):
        """Called for each received frame while a ping waits for its reply: whether `frame` is that reply.

        The default tells that it is a PONG frame.
        """
        if frame is None:
            raise TypeError("frame is None, expected a WSFrame")
        return frame.msg_type == WSMsgType.PONG

    cpdef pause_writing(self):
        """Called when more than the transport's high-water mark waits to be sent: stop producing.

        When it is not overridden the connection writes one line to its log: at INFO, or at DEBUG if slow peers are aborted.
        """

    cpdef resume_writing(self):
        """Called when what waits to be sent has fallen to the transport's low-water mark: go on producing."""


cdef bint overrides(WSListener listener, str name) except -1:
    """Whether a method is another one than WSListener's: of a class, in Python or Cython, or set on the instance."""
    return getattr(listener, name) != getattr(WSListener, name).__get__(listener)
