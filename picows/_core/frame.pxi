# WSFrame: one received frame, as the listener sees it.

cdef tuple msg_types = tuple(
    WSMsgType(value) if value in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG) else None for value in range(16)
)
cdef dict close_codes = {int(code): code for code in WSCloseCode}


cdef int share_enum_members() except -1:
    """Without a GIL each frame of each thread would write to the reference counts of the same few members."""
    if not PICOWS_EXACT_REFCOUNTS:
        for enum in (WSMsgType, WSCloseCode):
            for member in enum:
                # A count that overflows makes an object immortal: nobody counts it any more.
                Py_SET_REFCNT(member, PY_SSIZE_T_MAX)
    return 0


share_enum_members()


cdef class WSFrame:
    """One received frame. Its payload lies in the connection's read buffer: nothing was copied.

    A frame is valid inside :meth:`WSListener.on_ws_frame` only; used later it raises `RuntimeError`. What was taken from
    it stays: bytes, text, and also views (``memoryview(frame)``, :meth:`get_payload_as_memoryview`), which keep the
    memory that they point into alive and unchanged for as long as they exist.

    A frame is a read-only buffer of its payload: decoders that take a buffer (``msgspec.json.decode(frame)``) and
    ``transport.send(msg_type, frame)`` work without a copy.
    """

    cpdef bytes get_payload_as_bytes(self):
        """The payload, copied to a new `bytes`."""
        check_frame(self)
        if type(self._buffer) is bytes and self.payload_size == PyBytes_GET_SIZE(self._buffer):
            return <bytes>self._buffer
        return PyBytes_FromStringAndSize(self.payload_ptr, self.payload_size)

    cpdef str get_payload_as_utf8_text(self):
        """The payload decoded as UTF-8. Raises `UnicodeDecodeError`."""
        check_frame(self)
        return PyUnicode_DecodeUTF8(self.payload_ptr, self.payload_size, NULL)

    cpdef str get_payload_as_ascii_text(self):
        """The payload decoded as ASCII. Raises `UnicodeDecodeError`."""
        check_frame(self)
        return PyUnicode_DecodeASCII(self.payload_ptr, self.payload_size, NULL)

    cpdef object get_payload_as_memoryview(self):
        """The payload as a read-only `memoryview`, without a copy.

        The view stays valid and unchanged for as long as it is held, after the callback too. It keeps the whole read
        buffer that it points into: take bytes of what is to be kept for long.
        """
        return PyMemoryView_FromObject(self)

    cdef WSCloseCode get_close_code(self) except *:
        check_close_frame(self)
        cdef uint16_t code
        parse_close_payload(<uint8_t*>self.payload_ptr, self.payload_size, &code)
        return <WSCloseCode>code

    cpdef object get_close_message(self):
        """The reason of a CLOSE frame as `bytes`, None when there is none. `TypeError` for another type of frame."""
        check_close_frame(self)
        if self.payload_size <= 2:
            return None
        return PyBytes_FromStringAndSize(self.payload_ptr + 2, self.payload_size - 2)

    cpdef object get_close_reason(self):
        """The reason of a CLOSE frame as `str`, None when there is none. `TypeError` for another type of frame."""
        check_close_frame(self)
        if self.payload_size <= 2:
            return None
        return PyUnicode_DecodeUTF8(self.payload_ptr + 2, self.payload_size - 2, NULL)

    def __getbuffer__(self, Py_buffer* view, int flags):
        check_frame(self)
        if flags & PyBUF_WRITABLE == PyBUF_WRITABLE:
            raise BufferError("the payload of a WSFrame is read-only")
        # The block is what the view has to keep, not the frame.
        view.obj = self._buffer
        fill_view(view, self.payload_ptr, self.payload_size, True, flags)
        if type(self._buffer) is ReadBuffer:
            ws_atomic_add(&(<ReadBuffer>self._buffer).views, 1)

    def __str__(self):
        check_frame(self)
        return (
            f"WSFrame({msg_types[<Py_ssize_t>self.msg_type].name}, fin={bool(self.fin)}, rsv1={bool(self.rsv1)}, "
            f"rsv2={bool(self.rsv2)}, rsv3={bool(self.rsv3)}, last_in_buffer={bool(self.last_in_buffer)}, "
            f"payload_sz={self.payload_size}, tail_sz={self.tail_size})"
        )

    def __repr__(self):
        return "WSFrame(used after its callback)" if self._buffer is None else self.__str__()


cdef inline int check_frame(WSFrame frame) except -1:
    if frame._buffer is None:
        raise RuntimeError(
            "this WSFrame was used after its callback: a frame is valid inside on_ws_frame only, "
            "take get_payload_as_bytes() or get_payload_as_memoryview() there to keep its payload"
        )
    return 0


cdef inline int check_close_frame(WSFrame frame) except -1:
    check_frame(frame)
    if frame.msg_type != WSMsgType.CLOSE:
        raise TypeError(f"only a CLOSE frame has a close code and reason, this one is {msg_types[<Py_ssize_t>frame.msg_type].name}")
    return 0


cdef inline void fill_frame(WSFrame frame, Reader* reader, ReadBuffer buffer) noexcept:
    frame.payload_ptr = <char*>reader.frame.payload
    frame.payload_size = <Py_ssize_t>reader.frame.payload_size
    frame.tail_size = <Py_ssize_t>reader.frame.tail_size
    frame.msg_type = <WSMsgType>reader.frame.opcode
    frame.fin = reader.frame.fin
    frame.rsv1 = reader.frame.rsv1
    frame.rsv2 = reader.frame.rsv2
    frame.rsv3 = reader.frame.rsv3
    frame.last_in_buffer = reader.frame.last_in_buffer
    if frame._buffer is not buffer:
        frame._buffer = buffer


cdef inline void fill_message(WSFrame frame, Reader* reader, ReadBuffer buffer, MessageAssembler messages) noexcept:
    """A whole message, in the frame that ends it."""
    fill_frame(frame, reader, buffer)
    frame.payload_ptr = <char*>messages.payload
    frame.payload_size = <Py_ssize_t>messages.size
    frame.msg_type = <WSMsgType>messages.opcode
    frame.rsv1 = False
    if messages.owner is not None:
        frame._buffer = messages.owner
        messages.release()


cdef inline void empty_frame(WSFrame frame) noexcept:
    frame._buffer = None
    frame.payload_ptr = NULL
    frame.payload_size = 0
    frame.tail_size = 0


cdef inline object named_close_code(int code):
    """The member of WSCloseCode; a code without a name, such as a private one, as a plain int."""
    return close_codes.get(code, code)


@cython.binding(True)
def get_close_code(WSFrame self not None):
    """The close code of a CLOSE frame, `WSCloseCode.NO_INFO` when there is none (RFC 6455 5.5.1).

    A code without a name in `WSCloseCode`, such as the private 3000 to 4999, is a plain `int`.
    Raises `TypeError` for a frame of another type.
    """
    return named_close_code(self.get_close_code())


# The fields of a frame as Python attributes. Cython's own `readonly` attributes cannot refuse a frame that was kept past
# its callback, and build an enum member anew at each use; so descriptors of ours stand in the type instead. The close
# code is there for the same reason: a C enum would make a nameless member of the private codes.
cdef object get_msg_type(object frame, void* closure):
    check_frame(<WSFrame>frame)
    # By an int: the C enum itself would become a member first, by a search in Python code.
    return msg_types[<Py_ssize_t>(<WSFrame>frame).msg_type]

cdef object get_payload_size(object frame, void* closure):
    check_frame(<WSFrame>frame)
    return (<WSFrame>frame).payload_size

cdef object get_tail_size(object frame, void* closure):
    check_frame(<WSFrame>frame)
    return (<WSFrame>frame).tail_size

cdef object get_fin(object frame, void* closure):
    check_frame(<WSFrame>frame)
    return True if (<WSFrame>frame).fin else False

cdef object get_rsv1(object frame, void* closure):
    check_frame(<WSFrame>frame)
    return True if (<WSFrame>frame).rsv1 else False

cdef object get_rsv2(object frame, void* closure):
    check_frame(<WSFrame>frame)
    return True if (<WSFrame>frame).rsv2 else False

cdef object get_rsv3(object frame, void* closure):
    check_frame(<WSFrame>frame)
    return True if (<WSFrame>frame).rsv3 else False

cdef object get_last_in_buffer(object frame, void* closure):
    check_frame(<WSFrame>frame)
    return True if (<WSFrame>frame).last_in_buffer else False


cdef PyGetSetDef[8] frame_fields
frame_fields[0] = PyGetSetDef(b"msg_type", get_msg_type, NULL, b"The type of the frame, a `WSMsgType`.", NULL)
frame_fields[1] = PyGetSetDef(b"payload_size", get_payload_size, NULL, b"The size of the payload in bytes.", NULL)
frame_fields[2] = PyGetSetDef(
    b"tail_size", get_tail_size, NULL, b"How many bytes behind this frame have been received already.", NULL)
frame_fields[3] = PyGetSetDef(b"fin", get_fin, NULL, b"Whether this is the last frame of its message.", NULL)
frame_fields[4] = PyGetSetDef(b"rsv1", get_rsv1, NULL, b"The first reserved bit (RFC 6455 5.2).", NULL)
frame_fields[5] = PyGetSetDef(b"rsv2", get_rsv2, NULL, b"The second reserved bit.", NULL)
frame_fields[6] = PyGetSetDef(b"rsv3", get_rsv3, NULL, b"The third reserved bit.", NULL)
frame_fields[7] = PyGetSetDef(
    b"last_in_buffer", get_last_in_buffer, NULL,
    b"Whether no further complete frame waits in the read buffer: the newest one received so far.", NULL)


cdef int add_frame_attributes() except -1:
    cdef int i
    cdef PyTypeObject* frame_type = <PyTypeObject*>WSFrame
    attributes = <object>frame_type.tp_dict
    for i in range(8):
        attributes[frame_fields[i].name.decode()] = PyDescr_NewGetSet(frame_type, &frame_fields[i])
    attributes["get_close_code"] = get_close_code
    PyType_Modified(frame_type)
    return 0


add_frame_attributes()
