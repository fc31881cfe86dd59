"""The engine of the coroutine interfaces, for the Cython classes that are built on it. Private: no ABI."""

from cpython.object cimport PyObject

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport


cdef enum:
    FEW_MESSAGES = 8            # have their place in the object itself; a power of 2


cdef class KeepaliveQueue:
    cdef:
        object loop
        object context
        object timer
        MessageStream first, last
        object __weakref__


cdef class MessageStream(WSListener):
    cdef:
        WSTransport _transport  # None before the connection is made
        object loop
        unsigned long thread_id

        # What was received and not taken yet: a ring of `capacity` places, a power of 2. Only exact str and bytes lie in it,
        # which lead to no other object, so the cycle collector need not look.
        PyObject** ring
        PyObject* few[FEW_MESSAGES]
        Py_ssize_t capacity
        Py_ssize_t first
        Py_ssize_t count
        Py_ssize_t size         # bytes of memory of all of them

        # The socket is not read from above one of the high marks to below both of the low ones.
        Py_ssize_t high, low, high_bytes, low_bytes
        bint reading_paused
        bint dropping           # our CLOSE was sent, and one more than there is room for has come behind it

        object receiver         # the future that recv() waits for; None while nobody does
        bint receiver_woken
        list senders            # the futures that send() and drain() wait for; None until somebody does
        bint writing_paused
        int sent_in_a_row       # since anybody has waited
        object cork             # what is sent gathers while there is one
        bint cork_is_bounded    # by a call_soon that will remove it

        # Keepalive: seconds, and 0 for no pings and for no limit.
        double ping_interval, ping_timeout
        object keepalive        # what the last ping of it carries, random bytes
        double keepalive_sent
        Py_ssize_t unwritten    # when the time for its pong was over last, and 0 before
        object keepalive_context    # that of who has called keep_alive()
        object keepalive_timer      # of this connection alone, while it waits for a pong less than the interval, or longer
        KeepaliveQueue keepalive_queue
        MessageStream earlier, later    # beside it in the queue; None outside of it
        dict pings              # payloads to when they were sent and who waits for the pong; None while there is none
        readonly double latency     # between the last ping and its pong, 0 before

        readonly bint ended     # no more messages come; those that wait can still be taken
        bint tells_end_late     # a send that cannot go out any more waits for the end before it raises

    # For classes on top: what they call.
    cdef object take(self)
    cdef object receiving(self)
    cdef bint send_now(self, WSMsgType msg_type, message) except -1
    cdef object sending(self, int msg_type, message)
    cdef object receiving_event(self)
    cdef int end(self) except -1

    # And what they may override; only the first two are called for every message.
    cdef object message_of(self, WSFrame frame)
    cdef object event_of(self, message)
    cpdef ping_received(self, WSFrame frame)
    cpdef pong_received(self, WSFrame frame)
    cpdef close_received(self, WSFrame frame)
    cpdef connection_ended(self)
    cpdef ended_well(self)
    cpdef end_error(self)
    cpdef concurrency_error(self)


# Goes on where the queue has paused the socket, if it has: what comes is dropped, or there is room again.
cdef int resume_reading(MessageStream stream) except -1
