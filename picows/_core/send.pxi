# The way of a frame out: from a message to the socket, or to what waits for it.

cdef inline int checked_msg_type(object msg_type) except -1:
    """The value of a WSMsgType or of an integer, 0 to 15: it may be a reserved one."""
    cdef int value = small_int(msg_type) if isinstance(msg_type, int) else 16
    return value if value <= 15 else index_of_msg_type(msg_type)


cdef int index_of_msg_type(object msg_type) except -1:
    try:
        value = operator.index(msg_type)
    except TypeError:
        raise TypeError(f"msg_type is {msg_type!r}, expected a WSMsgType") from None
    if not 0 <= value <= 15:
        raise ValueError(f"msg_type is {msg_type!r}, expected one of WSMsgType")
    return value


cdef inline bint is_data_or_ping(WSMsgType msg_type) noexcept:
    # CONTINUATION, TEXT, BINARY, PING, PONG
    return <unsigned int>msg_type <= 15 and (1 << <unsigned int>msg_type) & 0b0000011000000111 != 0


cdef inline int check_data_or_ping(WSMsgType msg_type) except -1:
    if not is_data_or_ping(msg_type):
        if msg_type == WSMsgType.CLOSE:
            raise ValueError("msg_type is CLOSE, which is sent by send_close")
        raise ValueError(f"msg_type is {<int>msg_type}, expected one of WSMsgType")
    return 0


cdef int send_message(Connection connection, uint8_t first, object message) except -1:
    """Send a frame whose first byte is `first`; whether it was taken."""
    cdef Py_buffer view
    if not can_send(connection):
        return 0
    if not (connection.direct or connection.is_client or first & OPCODE_CONTROL_BIT) and has_lasting_payload(message):
        return send_uncopied(connection, first, message)
    if PyBytes_CheckExact(message):
        return send_frame(connection, first, <const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
    get_message(message, &view)
    try:
        # To give its buffer a message may have run code of its own.
        if not can_send(connection):
            return False
        return send_frame(connection, first, <const uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef bint has_lasting_payload(object message) except -1:
    """Whether the payload is large, and stays what it is for as long as somebody refers to it."""
    cdef Py_buffer* view
    if PyBytes_CheckExact(message):
        return PyBytes_GET_SIZE(message) > COPY_LIMIT
    if type(message) is WSFrame:
        return (<WSFrame>message).payload_size > COPY_LIMIT and (<WSFrame>message)._buffer is not None
    if not PyMemoryView_Check(message):
        return False
    view = PyMemoryView_GET_BUFFER(message)
    if view.len <= COPY_LIMIT or not view.readonly or not PyBuffer_IsContiguous(view, c"C"):
        return False
    try:
        owner = message.obj
    except ValueError:
        return False    # it was released: get_message() says so
    return type(owner) is bytes or type(owner) is ReadBuffer


cdef int send_uncopied(Connection connection, uint8_t first, object message) except -1:
    """Give the transport header and payload; it may keep them, so this is for what has_lasting_payload()."""
    cdef:
        uint8_t[MAX_HEADER_SIZE] header
        # A view of our own: the caller may release the one that was given.
        object payload = message if PyBytes_CheckExact(message) else PyMemoryView_FromObject(message)
        Py_ssize_t size = memoryview(payload).nbytes
        size_t head = write_header(header, first, size, False, 0)
    if not may_queue(connection, first, size):
        return False
    note_frame(connection, first)
    flush(connection)
    cdef bint in_write = connection.in_write
    if not takes_writes(connection):
        return True
    connection.transport_queued = connection.in_write = True
    try:
        connection.transport.underlying_transport.writelines([PyBytes_FromStringAndSize(<char*>header, head), payload])
    finally:
        connection.in_write = in_write
    if connection.debug:
        log_sent_frame(connection, first, size)
    return True


cdef int get_message(object message, Py_buffer* view) except -1:
    """The bytes of a message, for as long as the caller holds it and until PyBuffer_Release."""
    memset(view, 0, sizeof(Py_buffer))
    if message is None:
        return 0
    if isinstance(message, str):
        view.buf = <void*>PyUnicode_AsUTF8AndSize(message, &view.len)
        return 0
    try:
        PyObject_GetBuffer(message, view, PyBUF_SIMPLE)
    except (BufferError, ValueError) as error:
        # NumPy says ValueError of an array that is not contiguous, and so does a memoryview that was released.
        raise TypeError(
            f"message, a {type(message).__name__}, cannot be read as a C-contiguous buffer: {error}") from None
    except TypeError:
        raise TypeError(
            f"message is of type {type(message).__name__}, expected str, None or a C-contiguous buffer") from None
    return 0


cdef inline int check_control(uint8_t first, Py_ssize_t size) except -1:
    if first & OPCODE_CONTROL_BIT:
        if size > MAX_CONTROL_PAYLOAD:
            raise ValueError(
                f"the message of a control frame has {size} bytes, expected {MAX_CONTROL_PAYLOAD} at most (RFC 6455 5.5)")
        if not first & FIN_BIT:
            raise ValueError("fin is False, but a control frame may not be fragmented (RFC 6455 5.5)")
    return 0


cdef inline int send_frame(Connection connection, uint8_t first, const uint8_t* payload, Py_ssize_t size) except -1:
    """Build one frame and write it, unless the peer is too slow; `payload` is read before this returns."""
    check_control(first, size)
    if not may_queue(connection, first, size):
        return False
    write_frame(connection, first, payload, size)
    return True


cdef inline void note_frame(Connection connection, uint8_t first) noexcept:
    """A frame is on its way."""
    if not first & OPCODE_CONTROL_BIT:
        connection.fragmented = not first & FIN_BIT


cdef int write_frame(Connection connection, uint8_t first, const uint8_t* payload, Py_ssize_t size) except -1:
    cdef:
        bint masked = connection.is_client
        uint32_t key = next_mask(connection.memory) if masked else 0
        uint8_t* out = room_to_gather(connection, header_size(size, masked) + size) if connection.corks else NULL
    note_frame(connection, first)
    if out != NULL:
        build_frame(out, first, payload, size, masked, key)
    else:
        write_alone(connection, first, payload, size, masked, key)
    if connection.debug:
        log_sent_frame(connection, first, size)
    return 0


cdef int write_alone(Connection connection, uint8_t first, const uint8_t* payload, Py_ssize_t size, bint masked,
                     uint32_t key) except -1:
    cdef:
        uint8_t* scratch = connection.memory.scratch
        uint8_t[MAX_HEADER_SIZE] header
        size_t head
        Py_ssize_t done, chunk, sent
        bytes frame
    if not goes_direct(connection):
        # The transport may keep what it is given: it gets bytes of its own, built in one pass.
        frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>header_size(size, masked) + size)
        build_frame(<uint8_t*>PyBytes_AS_STRING(frame), first, payload, size, masked, key)
        return write_to_transport(connection, frame)
    if size <= SCRATCH_SIZE and (masked or size <= COPY_LIMIT):
        head = build_frame(scratch, first, payload, size, masked, key)
        return write_bytes(connection, scratch, <Py_ssize_t>head + size)
    head = write_header(header, first, size, masked, key)
    if not masked:
        # Large and unmasked: the kernel takes header and payload from where they lie.
        sent = ws_send2(connection.fd, header, head, payload, size)
        if sent < <Py_ssize_t>head + size:
            return queue_rest(connection, header, head, payload, size, sent, 0, 0)
        return 0
    # Larger than the scratch memory, and masked: chunk by chunk.
    memcpy(scratch, header, head)
    done = 0
    while True:
        chunk = min(size - done, <Py_ssize_t>SCRATCH_SIZE)
        mask_copy(scratch + head, payload + done, chunk, key)
        sent = ws_send(connection.fd, scratch, head + chunk)
        done += chunk
        if sent < <Py_ssize_t>head + chunk or done == size:
            break
        head = 0
    if sent < <Py_ssize_t>head + chunk:
        return queue_rest(connection, scratch, head + chunk, payload + done, size - done, sent, masked, key)
    return 0


cdef inline size_t build_frame(uint8_t* out, uint8_t first, const uint8_t* payload, Py_ssize_t size, bint masked,
                               uint32_t key) noexcept:
    """Write header and payload; returns the size of the header."""
    cdef size_t head = write_header(out, first, size, masked, key)
    if masked:
        mask_copy(out + head, payload, size, key)
    elif size:
        memcpy(out + head, payload, size)
    return head


cdef bytes unmasked_frame(uint8_t first, const uint8_t* payload, Py_ssize_t size):
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>header_size(size, False) + size)
    build_frame(<uint8_t*>PyBytes_AS_STRING(frame), first, payload, size, False, 0)
    return frame


cdef int write_whole_frame(Connection connection, bytes frame, Py_ssize_t payload_size) except -1:
    cdef:
        Py_ssize_t size = PyBytes_GET_SIZE(frame)
        Py_ssize_t sent
        uint8_t* out
        uint8_t first = <uint8_t>PyBytes_AS_STRING(frame)[0]
    out = room_to_gather(connection, size) if connection.corks else NULL
    note_frame(connection, first)
    if out != NULL:
        memcpy(out, PyBytes_AS_STRING(frame), size)
    else:
        sent = ws_send(connection.fd, PyBytes_AS_STRING(frame), size) if goes_direct(connection) else 0
        if sent < size:
            write_to_transport(connection, frame[sent:] if sent else frame)
    if connection.debug:
        log_sent_frame(connection, first, payload_size)
    return 0


cdef int send_in_place(Connection connection, uint8_t first, uint8_t* payload, Py_ssize_t size) except -1:
    """Send a payload that has 14 free bytes in front of it and may be masked where it lies."""
    cdef:
        bint masked = connection.is_client
        uint32_t key
        uint8_t* out
        size_t head
    if not can_send(connection):
        return 0
    check_control(first, size)
    if connection.deflater is not None and not first & OPCODE_CONTROL_BIT:
        check_not_deflated(connection, first)
    if not may_queue(connection, first, size):
        return False
    key = next_mask(connection.memory) if masked else 0
    head = header_size(size, masked)
    write_header(payload - head, first, size, masked, key)
    if masked:
        mask_copy(payload, payload, size, key)
    out = room_to_gather(connection, head + size) if connection.corks else NULL
    note_frame(connection, first)
    if out != NULL:
        memcpy(out, payload - head, head + size)
    else:
        write_bytes(connection, payload - head, <Py_ssize_t>head + size)
    if connection.debug:
        log_sent_frame(connection, first, size)
    return True


cdef inline int check_rsv1(uint8_t first) except -1:
    if first & RSV1_BIT:
        raise ValueError("rsv1 is True, but on this connection it marks what picows has compressed (RFC 7692)")
    return 0


cdef int check_not_deflated(Connection connection, uint8_t first) except -1:
    """A frame built in the caller's memory goes out as it is."""
    check_rsv1(first)
    if first & 0x0F != WSMsgType.CONTINUATION:
        connection.deflating = False
    elif connection.deflating:
        raise ValueError("this message was begun compressed: continue it by send()")
    return 0


cdef int log_sent_frame(Connection connection, uint8_t first, Py_ssize_t size) except -1:
    # Called when the frame is on its way and all is in order: a handler of the log may do anything, send too.
    connection.options.logger.log(
        PICOWS_DEBUG_LL, "sent %s, fin=%s, payload_sz=%d", msg_types[first & 0x0F].name, first & FIN_BIT != 0, size)
    return 0


cdef inline uint8_t* room_to_gather(Connection connection, size_t size) except? NULL:
    """Where the next `size` bytes wait; NULL when they are to leave by themselves, behind what was gathered."""
    cdef uint8_t* out
    if connection.gathered is None or connection.gathered.size + size > GATHER_SIZE:
        while connection.gathered is not None and connection.gathered.size + size > GATHER_SIZE:
            flush(connection)
        if size > GATHER_SIZE:
            return NULL
        take_write_buffer(connection)
    out = connection.gathered.data + connection.gathered.size
    connection.gathered.size += size
    return out


cdef int take_write_buffer(Connection connection) except -1:
    """The thread has one. A connection that gathers while another one does gets a buffer of its own."""
    cdef ThreadMemory memory = connection.memory
    if connection.gathered is None:
        connection.gathered = WriteBuffer() if memory.write_buffer is None else memory.write_buffer
        memory.write_buffer = None
    return 0


cdef int flush(Connection connection) except -1:
    """Write what was gathered."""
    cdef WriteBuffer full = connection.gathered
    if full is None:
        return 0
    # It is out of reach while it is written: what is sent meanwhile waits in another one, behind it.
    connection.gathered = None
    try:
        # An abort has dropped what was queued before it, so this would leave a gap.
        if connection.state < STATE_LINGERING:
            write_bytes(connection, full.data, full.size)
    finally:
        full.size = 0
        if connection.memory.write_buffer is None:
            connection.memory.write_buffer = full
    return 0


cdef int uncork(Connection connection) except -1:
    connection.corks -= 1
    return flush(connection) if connection.corks == 0 else 0


cdef inline bint goes_direct(Connection connection) except -1:
    """Whether the socket itself may be written to: it is plain, and the transport has nothing queued before us."""
    if not connection.direct:
        return False
    if connection.transport_queued:
        # Asked for only until the queue has run empty: it is a Python call.
        if connection.transport.underlying_transport.get_write_buffer_size() > 0:
            return False
        connection.transport_queued = False
    return True


cdef int write_bytes(Connection connection, const uint8_t* data, Py_ssize_t size) except -1:
    """Write `data` behind all that was written before; it is sent or copied when this returns."""
    cdef Py_ssize_t sent = 0
    if goes_direct(connection):
        sent = ws_send(connection.fd, data, size)
        if sent == size:
            return 0
    return write_to_transport(connection, PyBytes_FromStringAndSize(<const char*>data + sent, size - sent))


cdef int write_head(Connection connection, bytes head) except -1:
    """Write one half of the opening handshake."""
    return write_bytes(connection, <const uint8_t*>PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))


cdef int queue_rest(Connection connection, const uint8_t* first, Py_ssize_t first_size, const uint8_t* second,
                    Py_ssize_t second_size, Py_ssize_t sent, bint masked, uint32_t key) except -1:
    """Hand the transport what the kernel did not take of two parts; of the second one it took nothing while `masked`."""
    cdef:
        bytes rest = PyBytes_FromStringAndSize(NULL, first_size + second_size - sent)
        uint8_t* out = <uint8_t*>PyBytes_AS_STRING(rest)
    if sent < first_size:
        memcpy(out, first + sent, first_size - sent)
        out += first_size - sent
        sent = first_size
    sent -= first_size
    if masked:
        # SCRATCH_SIZE is a multiple of 4: each chunk begins with the first byte of the key.
        mask_copy(out, second, second_size, key)
    else:
        memcpy(out, second + sent, second_size - sent)
    return write_to_transport(connection, rest)


cdef inline bint takes_writes(Connection connection) except -1:
    """Whether the transport still has its connection.

    One that has lost it takes everything and tells so in a later turn of the loop. Until then it logs a warning for every write
    from the fifth on, so each fourth one asks: a Python call, and over TLS every frame comes along here.
    """
    connection.transport_writes += 1
    if connection.transport_writes & 3 == 0 and not connection.connection_lost_below:
        connection.connection_lost_below = is_closing(connection.transport.underlying_transport)
    return not connection.connection_lost_below


cdef inline int write_to_transport(Connection connection, bytes data) except -1:
    cdef bint in_write = connection.in_write
    if not takes_writes(connection):
        return 0
    connection.transport_queued = connection.in_write = True
    try:
        connection.transport.underlying_transport.write(data)
    finally:
        connection.in_write = in_write
    return 0


def checked_close(close_code, close_message):
    """What :meth:`WSTransport.send_close` is given: the reason as bytes.

    :raises ValueError, TypeError: as there
    """
    if not isinstance(close_code, int):
        raise TypeError(f"close_code is of type {type(close_code).__name__}, expected a WSCloseCode or an int")
    return close_reason_bytes(close_code, close_message)


cdef bytes close_reason_bytes(object code, object message):
    """The reason of a CLOSE frame to be sent, checked together with its code."""
    cdef bytes reason
    if message is None:
        reason = b""
    elif isinstance(message, str):
        reason = (<str>message).encode()
    else:
        try:
            reason = bytes(memoryview(message))
        except TypeError:
            raise TypeError(
                f"close_message is of type {type(message).__name__}, expected str, None or a buffer") from None
        except (BufferError, ValueError) as error:
            raise TypeError(f"close_message, a {type(message).__name__}, cannot be read as a buffer: {error}") from None
        try:
            reason.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"close_message is not UTF-8 (RFC 6455 5.5.1): {error}") from None
    if code == WSCloseCode.NO_INFO:
        if reason:
            raise ValueError("close_message was given without a close_code: NO_INFO sends an empty CLOSE")
    elif not 0 <= code <= 0xFFFF or not close_code_may_travel(code):
        raise ValueError(
            f"close_code is {code}, which may not travel: expected 1000 to 1003, 1007 to 1014 or 3000 to 4999 (RFC 6455 7.4)")
    if len(reason) > MAX_CONTROL_PAYLOAD - 2:
        raise ValueError(
            f"close_message has {len(reason)} bytes, expected {MAX_CONTROL_PAYLOAD - 2} at most (RFC 6455 5.5)")
    return reason
