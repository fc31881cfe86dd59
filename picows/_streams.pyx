"""Messages to await: the engine of all coroutine interfaces. It keeps their only queue, waiters and flow control."""

import asyncio
import functools
import os
import threading
import warnings
from asyncio import Future
from contextvars import Context, copy_context
from time import monotonic
from weakref import WeakValueDictionary

cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_CheckExact

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

from .arguments import check_int, check_seconds

cdef extern from "Python.h":
    """
    typedef int (*step_function)(PyObject*, PyObject*, PyObject**);
    static step_function operation_step;

    // Raises a StopIteration that takes `value`. Calling the class would make and read a tuple of arguments as well.
    static void stop_with(PyObject* value)
    {
        PyTypeObject* type = (PyTypeObject*)PyExc_StopIteration;
        PyObject* arguments = PyTuple_New(0);   // there is only one
        PyObject* error = arguments == NULL ? NULL : type->tp_new(type, arguments, NULL);
        Py_XDECREF(arguments);
        if (error == NULL) {
            Py_DECREF(value);
            return;
        }
        Py_XSETREF(((PyStopIterationObject*)error)->value, value);
    #if PY_VERSION_HEX >= 0x030C0000
        PyErr_SetRaisedException(error);
    #else
        PyErr_SetObject((PyObject*)type, error);
        Py_DECREF(error);
    #endif
    }

    // What `await` calls for a step in 3.9 and from 3.12 on. In Cython's own way each result would leave in a StopIteration
    // with a traceback, whose frame and function object take half the time of receiving a message that waits.
    static PyObject* operation_next(PyObject* operation)
    {
        PyObject* result = NULL;
        int has_to_wait = operation_step(operation, Py_None, &result);
        if (has_to_wait == 1)
            return result;
        if (result == Py_None)
            Py_DECREF(result);      // without any error it is a StopIteration with None
        else if (result != NULL)
            stop_with(result);
        return NULL;
    }

    static void set_step(PyTypeObject* type, step_function step)
    {
        operation_step = step;
        type->tp_iternext = operation_next;
    // What the tasks of asyncio call from 3.10 on, and `await` in 3.10 and 3.11, to get a result without a StopIteration
    // around it. Cython has no name for this method of a type.
    #if PY_VERSION_HEX >= 0x030A0000 && !defined(PYPY_VERSION)
        type->tp_as_async->am_send = (sendfunc)step;
    #endif
    }
    """
    const Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    int PyUnicode_KIND(object)
    bint PyObject_CheckBuffer(object)
    ctypedef struct PyTypeObject:
        pass
    ctypedef int (*step_function)(PyObject*, PyObject*, PyObject**)
    void set_step(PyTypeObject* type, step_function step)

cdef enum:
    BY_TYPE = -1    # a message is TEXT or BINARY by its own type
    # Then the event loop gets a turn. A transport that has lost the connection takes everything, and tells so in a later turn
    # only: whoever sends in a loop would never hear of it.
    MAX_SENT_IN_A_ROW = 128
    NO_STATUS = 1005
    ABNORMAL_CLOSURE = 1006
    KEEPALIVE_FAILED = 1011

cdef enum Kind:
    RECV
    EVENT
    ITERATE
    SEND
    DRAIN
    REFUSED         # a send that came too late, and waits for the end


cdef class MessageStream(WSListener):
    """The messages of one connection, to be awaited; the listener of a connection that assembles them and answers CLOSE.

    The connection is made with ``assemble_messages=True`` and ``enable_auto_close=True``. Everything here happens on the
    thread of its event loop, so nothing needs a lock: calls from another thread are refused.

    What is received waits here until it is taken. Above a high mark the socket is not read any more, and again below the low
    ones; what one read has brought may still come on top. While the socket is not read the peer's PING, CLOSE and end lie in
    the kernel behind its data, so they are seen when messages have been taken.

    What is sent while further messages wait gathers, and leaves in one write when the last of them was answered, when
    :meth:`recv` has to wait, or in the next turn of the event loop.

    :param high: how many messages may wait, None: any number
    :param low: with how many the socket is read again, a quarter of `high` by default
    :param high_bytes: how many bytes of memory the payloads of messages may take that wait, None: any number
    :param low_bytes: with how many the socket is read again, a quarter of `high_bytes` by default
    """

    def __cinit__(self):
        self.ring = self.few
        self.capacity = FEW_MESSAGES
        self.high = self.low = self.high_bytes = self.low_bytes = PY_SSIZE_T_MAX

    def __init__(self, high=1024, low=None, high_bytes=1024 * 1024, low_bytes=None):
        self.high, self.low = checked_marks("high", high, "low", low)
        self.high_bytes, self.low_bytes = checked_marks("high_bytes", high_bytes, "low_bytes", low_bytes)

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            Py_DECREF(<object>self.ring[(self.first + i) & (self.capacity - 1)])
        self.count = 0
        forget_ring(self)

    @property
    def transport(self):
        """The `WSTransport`, None before the connection is made."""
        return self._transport

    @property
    def close_code(self):
        """As `WSTransport.close_code`; 1006 as soon as no more messages come, if the peer's CLOSE has not."""
        code = None if self._transport is None else self._transport.close_code
        return ABNORMAL_CLOSURE if code is None and self.ended else code

    @property
    def close_reason(self):
        """As `WSTransport.close_reason`: None as long as `close_code` is."""
        reason = None if self._transport is None else self._transport.close_reason
        return "" if reason is None and self.ended else reason

    def recv(self):
        """Wait for the next message; a `str` or `bytes`.

        One at a time may wait. Cancelling it loses no message.

        :raises Exception: what :meth:`end_error` returns, once the connection has ended and all messages were taken
        """
        return new_operation(self, RECV)

    def __aiter__(self):
        return self

    def __anext__(self):
        """As :meth:`recv`; the iteration stops where the connection ended well."""
        return new_operation(self, ITERATE)

    def send(self, message):
        """Send a `str` as TEXT, and any other buffer as BINARY; wait while more than the transport's high-water mark is queued.

        It is sent or copied when this is awaited first: who cancels the waiting does not take it back. Who sends without end,
        and need not wait, gives the event loop a turn now and then.

        :raises TypeError: for a message of another type
        :raises Exception: what :meth:`end_error` returns, when the connection cannot send any more or ends meanwhile
        """
        return self.sending(BY_TYPE, message)

    def drain(self):
        """Wait while more than the transport's high-water mark is queued; raises as :meth:`send` does."""
        return new_operation(self, DRAIN)

    @cython.binding(True)
    async def close(self, code=1000, reason=None, timeout=10):
        """Close the connection as the protocol wants it; arguments as for :meth:`WSTransport.close`.

        What was received before can still be taken. What comes between our CLOSE and the peer's is kept as far as there is
        room, and the rest is dropped, so that the peer's CLOSE is seen in any case.
        """
        check_connected(self, "close")
        resume_reading(self)
        await self._transport.close(code, reason, timeout)

    @cython.binding(True)
    async def wait_closed(self):
        """Wait until the connection has ended, in whatever way."""
        check_connected(self, "wait_closed")
        try:
            await self._transport.wait_disconnected()
        except Exception:
            if not self._transport.is_disconnected:
                raise

    def keep_alive(self, interval, timeout):
        """Look for a dead peer from now on, until a CLOSE was sent or received.

        Every `interval` seconds a PING is sent, the first one when that time is over. If none of its PONG comes within
        `timeout` seconds: CLOSE 1011 with the reason ``keepalive ping timeout``, and the connection is aborted; `sent` of the
        transport's `close_handshake` tells it. Time in which the socket is not read does not count, as long as the peer takes
        what is sent to it.

        :param interval: seconds, None or 0: no pings
        :param timeout: seconds, None: no limit
        """
        check_connected(self, "keep_alive")
        if interval is None or interval == 0:
            return
        check_seconds("interval", interval)
        if timeout is not None:
            check_seconds("timeout", timeout)
        if self.ended:
            return
        stop_keepalive(self)
        self.ping_interval = interval
        self.ping_timeout = timeout or 0
        self.keepalive_sent = monotonic()
        self.keepalive_context = copy_context()
        self.keepalive_queue = queue_of(self.loop, self.ping_interval)
        wait_for_interval(self)

    def send_ping(self, bytes payload not None, waiter=None):
        """Send a PING, and remember it until its PONG comes, or that of a later one (RFC 6455 5.5.3).

        :param waiter: a future: its result will be the seconds that the reply took; or what :meth:`end_error` returns
        :returns: False when one with the same payload is waited for already; then nothing is sent
        :raises ValueError: when `payload` has more than 125 bytes
        :raises Exception: what :meth:`end_error` returns, when the connection cannot send any more
        """
        check_connected(self, "send_ping")
        if self.ended or self._transport.is_close_frame_sent:
            raise self.end_error()
        if self.pings is None:
            self.pings = {}
        if payload in self.pings:
            return False
        self.pings[payload] = monotonic(), waiter
        try:
            self._transport.send_ping(payload)
        except BaseException:
            if self.pings is not None:
                self.pings.pop(payload, None)
            raise
        return True

    # What classes on top override.

    cdef object message_of(self, WSFrame frame):
        """What is queued for a message: an exact str or bytes; None: nothing."""
        if frame.msg_type == WSMsgType.TEXT:
            return frame.get_payload_as_utf8_text()
        return frame.get_payload_as_bytes()

    cdef object event_of(self, message):
        """What :meth:`receiving_event` gives for a message, and for None: at the end of the connection."""
        return message

    cpdef ping_received(self, WSFrame frame):
        """Called for a PING that the connection does not answer itself."""

    cpdef pong_received(self, WSFrame frame):
        """Called for a PONG that acknowledges no ping of :meth:`send_ping`."""

    cpdef close_received(self, WSFrame frame):
        """Called for the peer's CLOSE; all messages before it wait or were taken."""

    cpdef connection_ended(self):
        """Called once, when the connection has ended; who waited is woken, but has not run yet."""

    cpdef ended_well(self):
        """Whether the end of the connection ends an ``async for``, or raises in it."""
        return self.close_code in (1000, 1001, NO_STATUS)

    cpdef end_error(self):
        """A new exception for who receives or sends on a connection that has ended."""
        if not self.ended:
            return ConnectionResetError("the connection is closing: nothing can be sent any more")
        reason = f" {self.close_reason!r}" if self.close_reason else ""
        return ConnectionResetError(f"the connection has ended with close code {int(self.close_code)}{reason}")

    cpdef concurrency_error(self):
        """A new exception for who receives while somebody else does."""
        return RuntimeError("recv() was called while another coroutine waits in recv(): only one at a time gets the next message")

    # What classes on top call.

    cdef object receiving(self):
        """What :meth:`recv` returns."""
        return new_operation(self, RECV)

    cdef object take(self):
        """The next message, None when none waits."""
        if self.count == 0:
            return None
        message = <object>self.ring[self.first]
        Py_DECREF(message)      # the reference of the ring
        self.first = (self.first + 1) & (self.capacity - 1)
        self.count -= 1
        self.size -= memory_of(message)
        if self.count == 0:
            forget_ring(self)
        if self.reading_paused and self.count <= self.low and self.size <= self.low_bytes:
            resume_reading(self)
        return message

    cdef bint send_now(self, WSMsgType msg_type, message) except -1:
        """Send a frame, or gather it while further messages wait; whether it was taken."""
        cdef bint taken
        if self.count and self.cork is None and not self.ended:
            begin_to_gather(self)
        taken = self._transport.send(msg_type, message)
        if self.cork is not None and self.count == 0:
            write_gathered(self)
        return taken

    cdef object sending(self, int msg_type, message):
        """What to await for `message` to be sent as a frame of `msg_type`, and for room behind it."""
        cdef Operation operation = new_operation(self, SEND)
        operation.msg_type = msg_type
        operation.message = message
        return operation

    cdef object receiving_event(self):
        """What to await for the next event: a message, or the end of the connection, which is told again and again.

        Any number may wait, in turn.
        """
        return new_operation(self, EVENT)

    cdef int end(self) except -1:
        """No more messages come: tell who waits. Called at the end of the connection, unless it was before."""
        if not self.ended:
            self.ended = True
            wake_receiver(self)
            wake_senders(self)
            forget_pings(self)
        return 0

    # What the connection calls.

    cpdef on_ws_connected(self, WSTransport transport):
        if transport is None:
            raise TypeError("transport is None, expected a WSTransport")
        self.loop = asyncio.get_running_loop()
        self.thread_id = PyThread_get_thread_ident()
        self._transport = transport

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame is None:
            raise TypeError("frame is None, expected a WSFrame")
        if frame.msg_type == WSMsgType.TEXT or frame.msg_type == WSMsgType.BINARY:
            if not self.dropping and not self.ended:
                message = self.message_of(frame)
                if message is not None:
                    put(self, message)
        elif frame.msg_type == WSMsgType.PING:
            self.ping_received(frame)
        elif frame.msg_type == WSMsgType.PONG:
            if not acknowledge(self, frame):
                self.pong_received(frame)
        elif frame.msg_type == WSMsgType.CLOSE:
            self.close_received(frame)

    cpdef on_ws_disconnected(self, WSTransport transport):
        self.reading_paused = False
        write_gathered(self)
        self.end()
        self.connection_ended()

    cpdef pause_writing(self):
        self.writing_paused = True

    cpdef resume_writing(self):
        self.writing_paused = False
        wake_senders(self)


cdef tuple checked_marks(str high_name, high, str low_name, low):
    if high is not None:
        check_int(high_name, high, 0)
    else:
        high = PY_SSIZE_T_MAX
    if low is None:
        return high, high // 4
    check_int(low_name, low, 0)
    if low > high:
        raise ValueError(f"{low_name} must be at most {high_name}, which is {high}, got {low}")
    return high, low


cdef inline int check_connected(MessageStream stream, str method) except -1:
    if PyThread_get_thread_ident() != stream.thread_id:
        if stream._transport is None:
            raise RuntimeError(f"{method}() was called before the connection was made")
        raise RuntimeError(
            f"{method}() was called from thread {PyThread_get_thread_ident()}, "
            f"but the connection belongs to thread {stream.thread_id}")
    return 0


include "_streams_queue.pxi"


# Who waits.

cdef object new_waiter(MessageStream stream):
    # loop.create_future() makes the same, by one call more. A future of our own, as asyncio lets others have, is slower in all:
    # tasks look up its methods by names that they make anew each time.
    future = Future(loop=stream.loop)
    # What `await` would do: a task is told by it that the future is not returned by mistake.
    future._asyncio_future_blocking = True
    return future


cdef int wake(future) except -1:
    try:
        future.set_result(None)
    except asyncio.InvalidStateError:
        pass    # it was cancelled, and its task is about to be told
    return 0


cdef int wake_receiver(MessageStream stream) except -1:
    if stream.receiver is not None and not stream.receiver_woken:
        stream.receiver_woken = True
        wake(stream.receiver)
    return 0


cdef int wake_senders(MessageStream stream) except -1:
    cdef list senders = stream.senders
    if senders is not None:
        stream.senders = None
        for future in senders:
            wake(future)
    return 0


# What was sent while further messages wait.

cdef int begin_to_gather(MessageStream stream) except -1:
    if not stream.cork_is_bounded:
        stream.loop.call_soon(gathered_long_enough, stream)
        stream.cork_is_bounded = True
    cork = stream._transport.cork()
    cork.__enter__()
    stream.cork = cork
    return 0


def gathered_long_enough(MessageStream stream not None):
    stream.cork_is_bounded = False
    write_gathered(stream)


cdef int write_gathered(MessageStream stream) except -1:
    cork = stream.cork
    if cork is not None:
        stream.cork = None      # before the write, which may run code
        cork.__exit__(None, None, None)
    return 0


include "_streams_pings.pxi"
include "_streams_intervals.pxi"

# What recv, send and drain return. A coroutine of Python or Cython would do the same in two objects instead of one, each
# made anew for each call; and most calls need not wait.

include "_streams_operation.pxi"

set_step(<PyTypeObject*>Operation, <step_function>step_slot)
