"""The connection of `picows.websockets`, for the server beside it. Private: no ABI."""

from picows._streams cimport MessageStream


cdef class Connection(MessageStream):
    cdef:
        object protocol_logger      # what `logger` adapts
        object close_timeout
        object write_high, write_low
        object keepalive_interval, keepalive_limit
        object given_id             # what of these was asked for or set; None: not yet
        object given_request, given_response, given_logger
        object extra_info           # a function as get_extra_info of a transport, for as long as there is none
        object fragmenting          # a future while a fragmented message is sent: other messages wait for it
        dict attributes             # those that the user has set; None until then
        object cause                # why we have ended the connection, where the codes do not tell
        bint closing                # close() was called


cdef class ClientConnection(Connection):
    pass


cdef class ServerConnection(Connection):
    cdef:
        public object server
        public object username
