# Who waits for their next ping: a queue for each event loop and interval, and one timer for its first.

cdef class KeepaliveQueue:
    """Connections of one event loop with one interval: a list of them in the order in which their pings are due.

    They are linked in themselves, so that a place in it costs no memory and one that ends is out of it at once. All links are
    references that the cycle collector sees. Like the connections it is used on the thread of its loop only: it needs no lock.
    """

    def __cinit__(self, loop):
        self.loop = loop
        # The timer is nobody's: it must neither show one connection's variables to others nor keep them.
        self.context = Context()


# By their intervals, the queues that connections made on this thread may enter. Each is kept by its connections.
cdef object queues_of_thread = threading.local()


cdef KeepaliveQueue queue_of(loop, double interval):
    cdef KeepaliveQueue queue
    queues = getattr(queues_of_thread, "by_interval", None)
    if queues is None:
        queues = queues_of_thread.by_interval = WeakValueDictionary()
    queue = queues.get(interval)
    if queue is None or queue.loop is not loop:     # the thread runs another loop now; connections keep those they have
        queue = queues[interval] = KeepaliveQueue(loop)
    return queue


cdef inline double due_time(MessageStream stream) noexcept:
    return stream.keepalive_sent + stream.ping_interval


cdef int wait_for_interval(MessageStream stream) except -1:
    """Enter the queue. Nearly always that is its end: those that wait have sent theirs before."""
    cdef:
        KeepaliveQueue queue = stream.keepalive_queue
        MessageStream before
    stop_keepalive(stream)
    before = queue.last
    while before is not None and due_time(before) > due_time(stream):
        before = before.earlier
    stream.earlier = before
    if before is not None:
        stream.later, before.later = before.later, stream
    else:
        stream.later, queue.first = queue.first, stream
    if stream.later is not None:
        stream.later.earlier = stream
    else:
        queue.last = stream
    if queue.first is stream:
        set_queue_timer(queue)
    return 0


cdef int leave_queue(MessageStream stream) except -1:
    cdef:
        KeepaliveQueue queue = stream.keepalive_queue
        MessageStream earlier = stream.earlier
        MessageStream later = stream.later
    if queue is None or (earlier is None and queue.first is not stream):
        return 0
    if earlier is not None:
        earlier.later = later
    else:
        queue.first = later
    if later is not None:
        later.earlier = earlier
    else:
        queue.last = earlier
    stream.earlier = stream.later = None
    if queue.first is None:
        stop_queue_timer(queue)     # else it comes too early once, which is cheaper than a new one for each that ends
    return 0


cdef int stop_queue_timer(KeepaliveQueue queue) except -1:
    if queue.timer is not None:
        queue.timer.cancel()
        queue.timer = None
    return 0


cdef int set_queue_timer(KeepaliveQueue queue) except -1:
    stop_queue_timer(queue)
    if queue.first is not None:
        delay = max(0.0, due_time(queue.first) - monotonic())
        queue.timer = queue.loop.call_later(delay, queue_due, queue, context=queue.context)
    return 0


def queue_due(KeepaliveQueue queue not None):
    """The ping of the first is due, and those of others may be."""
    cdef:
        MessageStream stream
        double now = monotonic()
    queue.timer = None
    try:
        while queue.first is not None:
            stream = queue.first
            # Whoever enters meanwhile is due after this, however short the interval is.
            if due_time(stream) > now + min(TIMER_SLACK, stream.ping_interval / 2):
                break
            leave_queue(stream)
            try:
                stream.keepalive_context.run(keepalive_due, stream)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                # As the loop does for timers: nobody else's keepalive has to suffer.
                queue.loop.call_exception_handler({"message": f"Exception in the keepalive of {stream!r}", "exception": error})
    finally:
        set_queue_timer(queue)
