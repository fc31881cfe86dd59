# How the closing handshake of a connection went, as its user sees it (RFC 6455 7.1).

@cython.final
cdef class WSCloseInfo:
    """What a CLOSE frame said (RFC 6455 5.5.1).

    :param code: the close code, `WSCloseCode.NO_INFO` when there was none; a plain `int` when it has no name
    :param reason: the reason as `str`, None when there was none
    """

    def __init__(self, code, reason):
        self.code = code
        self.reason = reason

    def __eq__(self, other):
        if not isinstance(other, WSCloseInfo):
            return NotImplemented
        return (self.code, self.reason) == ((<WSCloseInfo>other).code, (<WSCloseInfo>other).reason)

    def __hash__(self):
        return hash((self.code, self.reason))

    def __repr__(self):
        return f"WSCloseInfo(code={self.code!r}, reason={self.reason!r})"


@cython.final
cdef class WSCloseHandshake:
    """How far the closing handshake of a connection has come (RFC 6455 7.1).

    :param sent: what our CLOSE frame said, None while none was sent
    :param recv: what the peer's CLOSE frame said, None while none was received
    :param recv_then_sent: whether the peer began
    """

    def __init__(self, WSCloseInfo sent, WSCloseInfo recv, bint recv_then_sent):
        self.sent = sent
        self.recv = recv
        self.recv_then_sent = recv_then_sent

    def __repr__(self):
        return (f"WSCloseHandshake(sent={self.sent!r}, recv={self.recv!r}, "
                f"recv_then_sent={bool(self.recv_then_sent)})")


cdef inline WSCloseHandshake shown_handshake(WSTransport transport):
    # For any thread. What Cython makes of an attribute reads it twice: it counts one object and returns the other, if that changes
    # meanwhile.
    return <WSCloseHandshake>read_close_handshake(transport)
