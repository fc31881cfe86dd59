# cython: language_level=3, freethreading_compatible=True
"""What is counted, in Cython: the listeners of the workload, and the two functions that a profiler knows by name."""

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

cdef extern from *:
    """
    /* What follows the call keeps it from becoming a jump, after which a profiler would not see the function end. */
    __attribute__((noinline)) PyObject *picows_counted(PyObject *step) {
        PyObject *result = PyObject_CallNoArgs(step);
        __asm__ volatile("");
        return result;
    }
    __attribute__((noinline)) void picows_row_done(void) { __asm__ volatile(""); }
    """
    object picows_counted(object step)
    void picows_row_done()


def counted(step):
    """Call `step`; what runs inside is counted, everything else is not."""
    return picows_counted(step)


def row_done():
    """What was counted since the last time belongs to one row."""
    picows_row_done()


cdef class Receiver(WSListener):
    cdef:
        readonly WSTransport transport
        readonly Py_ssize_t received

    cpdef on_ws_connected(self, WSTransport transport):
        self.transport = transport

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.BINARY:
            self.received += frame.payload_size


cdef class Echo(Receiver):
    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.BINARY:
            self.received += frame.payload_size
            transport.send(frame.msg_type, frame)


def send_frames(WSTransport transport not None, bytes payload not None, Py_ssize_t frames):
    for _ in range(frames):
        transport.send(WSMsgType.BINARY, payload)
