# What recv(), send() and drain() return: an object to await, in place of a coroutine and its frame.

@cython.final
@cython.freelist(8)
cdef class Operation:
    """A coroutine (collections.abc.Coroutine) that waits for one future at a time."""
    cdef:
        MessageStream stream
        Kind kind
        int msg_type
        object message
        object future       # what it waits for
        bint finished

    def __dealloc__(self):
        if not self.finished and self.future is None and self.stream is not None:
            warn_not_awaited(self.kind)
        # Forgotten while it waited, as happens to tasks of a loop that was stopped.
        if self.future is not None and self.stream is not None and self.stream.receiver is self.future:
            self.stream.receiver = None

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        result = step(self)
        if not self.finished:
            return result
        if result is None:
            raise StopIteration
        raise StopIteration(result)

    def send(self, value):
        return self.__next__()

    def throw(self, kind, value=None, traceback=None):
        give_up(self)
        if not isinstance(value, BaseException):
            value = kind if isinstance(kind, BaseException) else kind() if value is None else kind(value)
        raise value if traceback is None else value.with_traceback(traceback)

    def close(self):
        give_up(self)


cdef inline Operation new_operation(MessageStream stream, Kind kind):
    cdef Operation operation = Operation.__new__(Operation)
    operation.stream = stream
    operation.kind = kind
    return operation


cdef int warn_not_awaited(Kind kind) except -1:
    """As Python does for its own coroutines: nothing was sent, or taken."""
    names = {RECV: "recv", EVENT: "receive", ITERATE: "__anext__", SEND: "send", DRAIN: "drain"}
    warnings.warn(f"{names[kind]}() was never awaited", RuntimeWarning)
    return 0


cdef object step(Operation operation):
    """Go on: returns the result, or a future to wait for when `finished` is unset behind it."""
    if operation.finished:
        raise RuntimeError("this was awaited already: call recv(), send() or drain() anew")
    operation.finished = True       # most need not wait, and all may raise
    if operation.kind == RECV or operation.kind == EVENT or operation.kind == ITERATE:
        return go_on_receiving(operation, operation.stream)
    return go_on_sending(operation, operation.stream)


cdef int step_slot(object operation, object value, PyObject** result) except -1:
    outcome = step(<Operation>operation)
    Py_INCREF(outcome)
    result[0] = <PyObject*>outcome
    return 0 if (<Operation>operation).finished else 1     # PYGEN_RETURN, PYGEN_NEXT


cdef int give_up(Operation operation) except -1:
    """Neither wait any more nor go on."""
    future = operation.future
    operation.finished = True
    operation.future = None
    if future is None:
        return 0
    if operation.stream.receiver is future:
        operation.stream.receiver = None
    elif operation.stream.senders is not None and future in operation.stream.senders:
        operation.stream.senders.remove(future)
    return 0


cdef object go_on_receiving(Operation operation, MessageStream stream):
    cdef bint was_woken
    check_connected(stream, "recv")
    if stream.receiver is not None and stream.receiver is operation.future:
        was_woken = stream.receiver_woken
        give_up(operation)
        if not was_woken:
            raise RuntimeError("recv() was resumed before the future that it waits for was done")
    elif stream.receiver is not None:
        if operation.kind != EVENT:
            raise stream.concurrency_error()
        return wait_behind(operation, stream)
    if stream.count == 0:
        # What is written may run code that brings messages, or the end.
        write_gathered(stream)
    if stream.count:
        return stream.take() if operation.kind != EVENT else stream.event_of(stream.take())
    if stream.ended:
        if operation.kind == EVENT:
            return stream.event_of(None)
        if operation.kind == ITERATE and stream.ended_well():
            raise StopAsyncIteration
        raise stream.end_error()
    stream.sent_in_a_row = 0
    operation.future = stream.receiver = new_waiter(stream)
    stream.receiver_woken = False
    operation.finished = False
    return operation.future


cdef object wait_behind(Operation operation, MessageStream stream):
    """Somebody else waits for the next message: try again when they have it, or have given up."""
    waiter = operation.future = new_waiter(stream)
    stream.receiver.add_done_callback(functools.partial(wake_next, waiter))
    operation.finished = False
    return waiter


def wake_next(waiter, _):
    wake(waiter)


cdef object go_on_sending(Operation operation, MessageStream stream):
    cdef:
        int msg_type = operation.msg_type
        bint has_waited = operation.future is not None
    check_connected(stream, "send" if operation.kind == SEND else "drain")
    if has_waited:
        give_up(operation)
    elif operation.kind == SEND:
        message, operation.message = operation.message, None
        if msg_type == BY_TYPE:
            msg_type = type_of(message)
        if not stream.send_now(<WSMsgType>msg_type, message):
            operation.kind = REFUSED
    elif stream.ended:
        raise stream.end_error()
    if operation.kind == REFUSED:
        if stream.ended or not stream.tells_end_late:
            raise stream.end_error()
        return wait_among_senders(operation, stream)
    if not stream.writing_paused:
        stream.sent_in_a_row += 1
        if has_waited or stream.sent_in_a_row < MAX_SENT_IN_A_ROW:
            return None
    if stream.ended:
        raise stream.end_error()
    if not stream.writing_paused:
        stream.loop.call_soon(wake_unless_paused, stream)
    return wait_among_senders(operation, stream)


cdef object wait_among_senders(Operation operation, MessageStream stream):
    stream.sent_in_a_row = 0
    operation.future = new_waiter(stream)
    if stream.senders is None:
        stream.senders = []
    stream.senders.append(operation.future)
    operation.finished = False
    return operation.future


def wake_unless_paused(MessageStream stream not None):
    if not stream.writing_paused:
        wake_senders(stream)


cdef inline int type_of(object message) except -1:
    if isinstance(message, str):
        return WSMsgType.TEXT
    if PyObject_CheckBuffer(message):
        return WSMsgType.BINARY
    raise TypeError(f"message is of type {type(message).__name__}, expected str or a buffer of bytes")
