# Header fields of any bytes, at once and as they arrive. The first byte of an input is where the lines begin, and the
# next two are the sizes of what arrives first; all of it is the head.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from picows.upgrade._fields import parse_fields

cdef extern from "reference.h" nogil:
    struct reference_field:
        size_t name_size, value, value_size, size
    int reference_read_field(const uint8_t* p, size_t n, reference_field* field) noexcept

cdef str HOST = "".join(["Ho", "st"])   # no interned one, so that a name that was found is known
cdef dict NAMES = {HOST: HOST}
cdef object parse = parse_fields


cdef api int check(const uint8_t* data, size_t size) except -1:
    cdef reference_field field
    cdef size_t line, first, second
    cdef list fields, early
    cdef bytes head, name, value
    if size < 3:
        return 0
    first = min(<size_t>data[1], size)
    second = min(first + data[2], size)
    line = min(<size_t>data[0], first)
    head = PyBytes_FromStringAndSize(<const char*>data, <Py_ssize_t>size)
    fields, end = parse(head, line, NAMES)

    early, at = parse(head[:<Py_ssize_t>first], line, NAMES)
    for part in (head[:<Py_ssize_t>second], head):
        more, at = parse(part, at, NAMES)
        early += more
    assert early == fields, "in pieces, other fields came out"
    assert at == end, "in pieces, the fields end elsewhere"

    for got_name, got_value in fields:
        assert reference_read_field(data + line, size - line, &field), f"no field at {line}"
        name = PyBytes_FromStringAndSize(<const char*>data + line, <Py_ssize_t>field.name_size)
        value = PyBytes_FromStringAndSize(<const char*>data + line + field.value, <Py_ssize_t>field.value_size)
        assert (<str>got_name).encode("ascii") == name
        assert (got_name is HOST) == (name == b"Host")
        assert (<str>got_value).encode("utf-8", "surrogateescape") == value
        line += field.size
    assert not reference_read_field(data + line, size - line, &field), f"a field at {line} is missing"
    assert <size_t>end == line
    return 0
