"""The field lines of an HTTP head (RFC 9112 section 5): bytes in, names and values out.

In C, because a server spends more on reading them than on all the rest of a handshake.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t

cdef uint8_t[256] IN_NAME       # a token (RFC 9110 section 5.6.2)
cdef uint8_t[256] IN_VALUE      # visible bytes, blanks and whatever is not ASCII (section 5.5)

cdef int byte
for byte in range(256):
    IN_NAME[byte] = byte in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    IN_VALUE[byte] = byte == 9 or (byte >= 32 and byte != 127)


def parse_fields(bytes head not None, Py_ssize_t start, dict names not None):
    """Read field lines from ``head[start:]``, each of the form ``name: value`` CR LF, up to the first that is none.

    :param names: what stands for a name in place of a new `str`
    :returns: a list of (name, value) pairs, blanks around the value taken off; and where the lines end. Bytes of a value
        that are not UTF-8 become surrogate escapes (PEP 383).
    """
    cdef:
        const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(head)
        Py_ssize_t size = PyBytes_GET_SIZE(head)
        Py_ssize_t line = start     # where the present line begins
        Py_ssize_t i, colon, first, last
        list fields = []
    if not 0 <= start <= size:
        raise ValueError(f"start is {start}, expected 0 to {size} (the size of head)")
    while True:
        i = line
        while i < size and IN_NAME[data[i]]:
            i += 1
        if i == line or i == size or data[i] != c":":
            break
        colon = i
        i += 1
        while i < size and IN_VALUE[data[i]]:
            i += 1
        if size - i < 2 or data[i] != c"\r" or data[i + 1] != c"\n":
            break
        first = colon + 1
        last = i
        while first < last and (data[first] == c" " or data[first] == c"\t"):
            first += 1
        while first < last and (data[last - 1] == c" " or data[last - 1] == c"\t"):
            last -= 1
        name = PyUnicode_DecodeASCII(<const char*>data + line, colon - line, NULL)
        fields.append((
            names.get(name, name), PyUnicode_DecodeUTF8(<const char*>data + first, last - first, "surrogateescape")))
        line = i + 2
    return fields, line
