# What the connections of one ws_connect, or of one server, have in common.

@cython.final
cdef class ConnectionOptions:
    """What a compiled connection has to know of the settings, as C has it. They are defined and checked above, in settings.py.

    :param settings: an object with each option as an attribute, the `side` it is for, and its `logger`
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
        tuple subprotocols
        object origins
        bint assemble_messages
        uint64_t max_message_size
        readonly Registry registry          # of a server; None for a client, and for who was accepted by others

    def __init__(self, settings, listener_factory, Registry registry=None):
        self.listener_factory = listener_factory
        self.logger = settings.logger
        self.is_client_side = settings.side == "client"
        self.registry = registry
        self.handshake_timeout = settings.websocket_handshake_timeout
        self.disconnect_on_exception = settings.disconnect_on_exception
        self.enable_auto_ping = settings.enable_auto_ping
        self.auto_ping_idle_timeout = settings.auto_ping_idle_timeout
        self.auto_ping_reply_timeout = settings.auto_ping_reply_timeout
        self.ping_when_idle = settings.auto_ping_strategy == WSAutoPingStrategy.PING_WHEN_IDLE
        self.enable_auto_pong = settings.enable_auto_pong
        self.max_frame_size = settings.max_frame_size
        # Half of the shared block at most: the rest has to have room behind it.
        self.small_frame_limit = min(settings.read_buffer_init_size, SHARED_READ_SIZE // 2)
        self.coalesce_writes = settings.coalesce_writes
        self.enable_auto_close = settings.enable_auto_close
        self.max_write_buffer_size = settings.max_write_buffer_size or 0
        self.slow_peer = settings.slow_peer
        self.receive_timeout = settings.receive_timeout or 0
        self.assemble_messages = settings.assemble_messages or settings.compression is not None
        self.max_message_size = settings.max_message_size
        self.compression = settings.compression
        self.subprotocols = tuple(settings.subprotocols or ())
        self.origins = None if settings.origins is None else tuple(settings.origins)
