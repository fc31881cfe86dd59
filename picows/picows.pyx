"""The asyncio-aware half of the package: frames of a connection in and out, on top of the sans-I/O codec."""

import asyncio
import functools
import inspect
import operator
import os
import threading
import weakref
from collections.abc import Iterable

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_READ, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_IsContiguous,
    PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.memoryview cimport (
    PyMemoryView_Check, PyMemoryView_FromMemory, PyMemoryView_FromObject, PyMemoryView_GET_BUFFER,
)
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.time cimport monotonic, time
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.math cimport NAN
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from picows._codec cimport (
    ERR_FRAME_TOO_BIG, FIN_BIT, MAX_CONTROL_PAYLOAD, MAX_HEADER_SIZE, OPCODE_CLOSE, OPCODE_CONTROL_BIT, RSV1_BIT,
    Reader, STATUS_FRAME, STATUS_NEED_MORE, Status, close_code_may_travel, first_byte, header_size, mask_copy,
    parse_close_payload, reader_attach, reader_commit, reader_init, reader_limit, reader_needed, reader_next,
    reader_space, reader_unread, status_close_code, status_sentence, write_close_payload, write_header,
)

from picows._messages cimport (
    ERR_MESSAGE_TOO_BIG, MESSAGE_MORE, MESSAGE_READY, MessageAssembler, MessageStatus, message_status_close_code,
    message_status_sentence,
)

from . import deflate
from ._tracebacks import release_frames
from .arguments import check_seconds, checked_index
from .errors import WSError, WSHandshakeError, WSProtocolError, WSSlowPeerError
from .stats import WSServerStats, WSStats
from .tls import is_closing, write_buffers
from .upgrade import RequestReader, ResponseReader, WSUpgradeResponse, WSUpgradeResponseWithListener, answer

cdef extern from "_native/sockets.h" nogil:
    bint ws_direct_io_supported()
    Py_ssize_t ws_send(int fd, const void* data, size_t size)
    Py_ssize_t ws_send2(int fd, const void* head, size_t head_size, const void* body, size_t body_size)
    Py_ssize_t ws_unsent(int fd)
    void ws_tune_tcp(int fd)
    void ws_shutdown_write(int fd)

cdef extern from "_native/threads.h" nogil:
    void ws_atomic_add(long* counter, long amount)
    long ws_atomic_load(long* counter)
    void ws_watch_forks()
    unsigned int ws_fork_count()

cdef extern from *:
    """
    #define read_close_handshake(transport) ws_read_field((transport)->close_handshake)
    #define write_close_handshake(transport, value) ws_write_field((transport)->close_handshake, (value))
    """
    # What is read is borrowed; the reference of what is written has to be there.
    void* read_close_handshake(WSTransport transport)
    void write_close_handshake(WSTransport transport, WSCloseHandshake value)

cdef extern from "Python.h":
    """
    #ifdef Py_GIL_DISABLED
    #define PICOWS_EXACT_REFCOUNTS 0
    #else
    #define PICOWS_EXACT_REFCOUNTS 1
    #endif
    // An int of 0 to 15, or else 16: without the call that CPython's own conversions are.
    static inline int small_int(PyObject* number)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        PyLongObject* value = (PyLongObject*)number;
        Py_ssize_t digit = PyUnstable_Long_IsCompact(value) ? PyUnstable_Long_CompactValue(value) : -1;
        return digit >= 0 && digit <= 15 ? (int)digit : 16;
    #else
        Py_ssize_t size = Py_SIZE(number);
        unsigned long digit = size == 1 ? ((PyLongObject*)number)->ob_digit[0] : size == 0 ? 0 : 16;
        return digit <= 15 ? (int)digit : 16;
    #endif
    }
    """
    const bint PICOWS_EXACT_REFCOUNTS
    int small_int(object)
    Py_ssize_t Py_REFCNT(object)
    void Py_SET_REFCNT(object, Py_ssize_t)
    const Py_ssize_t PY_SSIZE_T_MAX
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    ctypedef struct PyTypeObject:
        void* tp_dict
        Py_ssize_t tp_dictoffset
        unsigned long tp_flags
    const unsigned long Py_TPFLAGS_HEAPTYPE
    PyTypeObject* Py_TYPE(object)
    void PyType_Modified(PyTypeObject*)
    ctypedef object (*getter)(object, void*)
    ctypedef int (*setter)(object, object, void*) except -1
    ctypedef struct PyGetSetDef:
        const char* name
        getter get
        setter set
        const char* doc
        void* closure
    object PyDescr_NewGetSet(PyTypeObject*, PyGetSetDef*)
    ctypedef struct PyGetSetDescrObject:
        PyGetSetDef* d_getset
    ctypedef struct PyMethodDef:
        pass
    ctypedef struct PyMethodDescrObject:
        PyMethodDef* d_method
    object PyDescr_NewMethod(PyTypeObject*, PyMethodDef*)

PICOWS_DEBUG_LL = 9

# What a callback raises to end the program, not the connection.
cdef tuple EXIT = (KeyboardInterrupt, SystemExit)

# The parts, each on those above it; tests/test_architecture.py holds them to it. Their functions are inlined into each
# other, so they are one compiled unit.
cdef class Connection
cdef class LatestValues
cdef class Registry

include "_core/memory.pxi"
include "_core/options.pxi"
include "_core/connection.pxi"
include "_core/frame.pxi"
include "_core/listener.pxi"
include "_core/close_handshake.pxi"
include "_core/timers.pxi"
include "_core/states.pxi"
include "_core/failure.pxi"
include "_core/flow.pxi"
include "_core/stats.pxi"
include "_core/send.pxi"
include "_core/compression.pxi"
include "_core/latest.pxi"
include "_core/closing.pxi"
include "_core/marks.pxi"
include "_core/conflation.pxi"
include "_core/broadcast.pxi"
include "_core/keepalive.pxi"
include "_core/receive.pxi"
include "_core/registry.pxi"
include "_core/handshake.pxi"
include "_core/protocol.pxi"
include "_core/adopt.pxi"
include "_core/transport.pxi"
