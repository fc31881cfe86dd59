# What the connections of one ws_connect, or of one server, have in common.

@cython.final
cdef class ConnectionOptions:
    """What the connections of one `ws_connect` or of one server have in common; checked by the caller.

    :param listener_factory: server: ``factory(request)``, client: ``factory(request, response)``
    """
    cdef:
        object listener_factory
        object logger
        object handshake_timeout
        double auto_ping_idle_timeout
        double auto_ping_reply_timeout
        uint64_t max_frame_size
        Py_ssize_t small_frame_limit
        bint is_client_side
        bint disconnect_on_exception
        bint enable_auto_ping
        bint enable_auto_pong
        bint ping_when_idle
        bint coalesce_writes
        bint enable_auto_close
        Py_ssize_t max_write_buffer_size    # 0: no limit
        WSSlowPeerPolicy slow_peer
        double receive_timeout              # 0: none
        object compression                  # a WSDeflate or None
        bint assemble_messages
        uint64_t max_message_size
        readonly Registry registry          # of a server; None for a client

    def __init__(self, *, listener_factory, bint is_client_side, bint disconnect_on_exception, handshake_timeout, logger,
                 bint enable_auto_ping, double auto_ping_idle_timeout, double auto_ping_reply_timeout,
                 auto_ping_strategy, bint enable_auto_pong, uint64_t max_frame_size, Py_ssize_t read_buffer_init_size,
                 bint coalesce_writes, bint enable_auto_close, Py_ssize_t max_write_buffer_size,
                 WSSlowPeerPolicy slow_peer, double receive_timeout, compression, bint assemble_messages,
                 uint64_t max_message_size):
        self.listener_factory = listener_factory
        self.is_client_side = is_client_side
        self.disconnect_on_exception = disconnect_on_exception
        self.handshake_timeout = handshake_timeout
        self.logger = logger
        self.enable_auto_ping = enable_auto_ping
        self.auto_ping_idle_timeout = auto_ping_idle_timeout
        self.auto_ping_reply_timeout = auto_ping_reply_timeout
        self.ping_when_idle = auto_ping_strategy == WSAutoPingStrategy.PING_WHEN_IDLE
        self.enable_auto_pong = enable_auto_pong
        self.max_frame_size = max_frame_size
        self.coalesce_writes = coalesce_writes
        self.enable_auto_close = enable_auto_close
        self.max_write_buffer_size = max_write_buffer_size
        self.slow_peer = slow_peer
        self.receive_timeout = receive_timeout
        self.compression = compression
        self.assemble_messages = assemble_messages or compression is not None
        self.max_message_size = max_message_size
        self.registry = None if is_client_side else Registry()
        # Half of the shared block at most: the rest has to have room behind it.
        self.small_frame_limit = min(read_buffer_init_size, SHARED_READ_SIZE // 2)
