# The way of a frame in: from the memory it is received into to the listener.

cdef inline ReadBuffer lend_buffer(Connection connection):
    """Where the transport may write what it receives next."""
    cdef:
        ReadBuffer buffer
        size_t unread = reader_unread(&connection.reader)
        size_t space = 0
    if PyThread_get_thread_ident() != connection.thread_id:
        raise RuntimeError(
            f"the connection belongs to thread {connection.thread_id}, "
            f"but its loop now runs in thread {PyThread_get_thread_ident()}")
    if connection.buffer is not None and not connection.delivering:
        reader_space(&connection.reader, &space)
    if space == 0 and (connection.delivering or unread > SHARED_READ_SIZE // 2):
        # A loop was run inside a callback and reads more, or it was stopped there: the frame of that callback keeps
        # its block, all behind it goes elsewhere. The unread bytes move before the old block may be freed.
        buffer = ReadBuffer(<Py_ssize_t>unread + SHARED_READ_SIZE)
        reader_attach(&connection.reader, buffer.data, buffer.capacity)
        connection.buffer = buffer
        reader_space(&connection.reader, &space)
    if space:
        buffer = connection.buffer
        buffer.lent_from = <Py_ssize_t>connection.reader.end
        buffer.lent_size = <Py_ssize_t>space
    elif (connection.large_frame and unread == 0 and connection.memory.spare is not None
            and connection.memory.spare.capacity >= connection.large_frame):
        # Large frames seldom come alone: the next one is read straight to its place.
        buffer = connection.memory.spare
        buffer.lent_from = 0
        buffer.lent_size = connection.large_frame
    else:
        # An incomplete small frame goes to the front of the shared block when there is more: see `attach`.
        buffer = take_read_buffer(connection.memory)
        buffer.lent_from = <Py_ssize_t>unread
        buffer.lent_size = buffer.capacity - <Py_ssize_t>unread
    connection.lent = buffer
    return buffer


cdef inline int receive_frames(Connection connection, ReadBuffer buffer, Py_ssize_t size) except -1:
    """The transport has written `size` bytes of frames into the memory that was lent."""
    if connection.options.enable_auto_ping or connection.over_tls or connection.options.receive_timeout:
        connection.last_received = monotonic()
    keep_received(connection, buffer, size)
    return deliver(connection)


cdef inline int keep_received(Connection connection, ReadBuffer buffer, Py_ssize_t size) except -1:
    """Put what was received behind what waits."""
    cdef Py_ssize_t capacity = buffer.lent_from + buffer.lent_size
    buffer.lent_size = 0
    if buffer is not connection.buffer:
        attach(connection, buffer, capacity)
    connection.bytes_received += size
    reader_commit(&connection.reader, size)
    return 0


cdef inline void take(ThreadMemory memory, ReadBuffer buffer) noexcept:
    if memory.read_buffer is buffer:
        memory.read_buffer = None
    elif memory.spare is buffer:
        memory.spare = None


cdef inline int attach(Connection connection, ReadBuffer buffer, Py_ssize_t capacity) except -1:
    """Go on reading in another block: bytes of an incomplete frame move to its front, which was left free."""
    take(connection.memory, buffer)
    reader_attach(&connection.reader, buffer.data, capacity)
    connection.buffer = buffer
    return 0


cdef int deliver(Connection connection) except -1:
    """Call the listener for each complete frame that was received, then put the memory in order."""
    cdef:
        ReadBuffer buffer = connection.buffer
        bint nested = connection.delivering
        str callback
    connection.delivering = True
    try:
        while connection.state & DELIVERS:
            try:
                deliver_frames(connection)
                break
            except BaseException as error:
                callback = "is_user_specific_pong" if connection.failed_at_pong else "on_ws_frame"
                connection.failed_at_pong = False
                if isinstance(error, EXIT):
                    exit_loop(connection, error)
                    # If the loop is run again, it goes on with the frames behind this one.
                    connection.loop.call_soon(deliver_rest, connection)
                    break
                # Whoever raises a WSProtocolError wants the connection closed.
                if (connection.options.disconnect_on_exception or isinstance(error, WSProtocolError)
                        or not connection.state & CONNECTED):
                    callback_failed(connection, callback, error)
                    break
                log_error(connection, f"{callback} failed, the connection stays open", error)
                flush(connection)
        if connection.state & (CONNECTED | DELIVERS) == CONNECTED and (
                connection.options.enable_auto_close or connection.closes_when_answered):
            answer_close(connection)
        limit_exchange(connection)
    finally:
        connection.delivering = nested
        if connection.burst_corked and not nested:
            connection.burst_corked = False
            uncork(connection)
        if buffer is not None and connection.buffer is not buffer:
            give_back(connection.memory, buffer, connection.loop)
        if connection.buffer is not None:
            settle(connection, connection.buffer)
        if connection.options.receive_timeout and connection.stall_timer is None and awaits_rest(connection):
            watch_stall(connection)
    return tell_flow(connection)


cdef int deliver_frames(Connection connection) except -1:
    cdef:
        ThreadMemory memory = connection.memory
        WSListener listener = connection.listener
        WSTransport transport = connection.transport
        WSFrame frame = memory.frame
        Status status
        # One look-up for a burst. A listener of a Cython class without a Python subclass is called through its vtable.
        object callback = None if is_compiled(listener) else (<object>listener).on_ws_frame
    memory.frame = None
    if frame is None:
        frame = WSFrame.__new__(WSFrame)
    try:
        while connection.state & DELIVERS:
            status = reader_next(&connection.reader)
            if status != STATUS_FRAME:
                if status != STATUS_NEED_MORE:
                    protocol_error(connection, status)
                break
            connection.frames_received += 1
            if connection.messages is None:
                fill_frame(frame, &connection.reader, connection.buffer)
            elif not next_message(connection, frame):
                continue
            if connection.debug:
                connection.options.logger.log(PICOWS_DEBUG_LL, "received %s", str(frame))
            if not frame.last_in_buffer and connection.options.coalesce_writes:
                # Not alone in its burst: one read, one write.
                if not connection.burst_corked:
                    connection.burst_corked = True
                    connection.corks += 1
            # The connection itself looks at control frames, and at all frames while a ping waits for its reply.
            if not (frame.msg_type & 8 or connection.awaits_pong) or is_for_listener(connection, frame):
                if callback is None:
                    listener.on_ws_frame(transport, frame)
                else:
                    callback(transport, frame)
            if not PICOWS_EXACT_REFCOUNTS or Py_REFCNT(frame) > 1:
                # Somebody may have kept it: it says so when it is used, and the next one is a new object.
                empty_frame(frame)
                frame = WSFrame.__new__(WSFrame)
    finally:
        empty_frame(frame)
        if Py_REFCNT(frame) == 1 and memory.frame is None:
            memory.frame = frame
    return 0


cdef int start_messages(Connection connection, agreement) except -1:
    """From now on the listener sees whole messages."""
    inflater = None
    if agreement is not None:
        inflater = agreement.inflater(connection.is_client)
        connection.deflater = agreement.deflater(connection.is_client)
    connection.messages = MessageAssembler(connection.options.max_message_size, inflater)
    limit_next_frame(connection)
    return 0


cdef inline void limit_next_frame(Connection connection) noexcept:
    # Before memory is taken for it.
    reader_limit(&connection.reader, min(connection.options.max_frame_size, <uint64_t>connection.messages.room()))


cdef int next_message(Connection connection, WSFrame frame) except -1:
    """Take the frame that was read; whether `frame` is now something for the listener."""
    cdef:
        MessageAssembler messages = connection.messages
        MessageStatus status
        bint was_limited = messages.fragments != 0
    if connection.reader.frame.opcode & 8:
        status = messages.check_control(&connection.reader.frame)
        if status == MESSAGE_MORE:
            fill_frame(frame, &connection.reader, connection.buffer)
            return True
    else:
        try:
            status = messages.feed(&connection.reader.frame)
        except WSProtocolError as error:
            peer_failed(connection, error.code, str(error).encode())
            return False
        if status == MESSAGE_READY:
            fill_message(frame, &connection.reader, connection.buffer, messages)
            if was_limited:
                limit_next_frame(connection)
            return True
        if status == MESSAGE_MORE:
            limit_next_frame(connection)
            return False
    peer_failed(connection, message_status_close_code(status), message_status_sentence(status))
    return False


cdef inline bint is_compiled(WSListener listener) noexcept:
    cdef PyTypeObject* listener_type = Py_TYPE(listener)
    return listener_type.tp_dictoffset == 0 and not listener_type.tp_flags & Py_TPFLAGS_HEAPTYPE


cdef int settle(Connection connection, ReadBuffer buffer) except -1:
    """After a burst: keep the bytes of an incomplete frame, return the block they came in."""
    cdef:
        Reader* reader = &connection.reader
        size_t unread = reader_unread(reader)
        size_t needed
        ReadBuffer own
    if unread == 0 or not connection.state & DELIVERS:
        if not buffer.is_shared and reader.end < reader.capacity:
            connection.large_frame = 0
        reader.data = NULL
        reader.capacity = reader.start = reader.end = 0
        connection.buffer = None
        give_back(connection.memory, buffer, connection.loop)
        return 0
    needed = reader_needed(reader)
    if not buffer.is_shared and reader.start == 0 and needed <= reader.capacity and reader.end < reader.capacity:
        return 0    # a large frame on its way to its own place
    # A large frame is read straight to a block of its size. A small one, or one whose size is not known yet, waits in a
    # block of what there is and goes to the front of the shared block with the next read: one more small copy, but the
    # read is a whole burst again. (Whole frames wait too where a callback has stopped the loop.)
    if needed > <size_t>connection.options.small_frame_limit and needed > unread:
        own = take_large_buffer(connection.memory, <Py_ssize_t>needed)
        reader_attach(reader, own.data, needed)
        connection.large_frame = <Py_ssize_t>needed if SHARED_READ_SIZE // 4 < needed <= MAX_SPARE_SIZE else 0
    else:
        own = ReadBuffer(<Py_ssize_t>unread)
        reader_attach(reader, own.data, unread)
        connection.large_frame = 0
    connection.buffer = own
    give_back(connection.memory, buffer, connection.loop)
    return 0


cdef int is_for_listener(Connection connection, WSFrame frame) except -1:
    """What the connection itself does with a frame; whether the listener sees it then."""
    if frame.msg_type & 8:
        connection.control_frames_received += 1
    if frame.msg_type == WSMsgType.PONG and take_numbered_pong(connection, frame):
        return False
    if connection.awaits_pong and is_pong_to_listener(connection, frame):
        if not connection.awaits_numbered:
            pong_received(connection)
            return False
        # Not what is measured, but a sign of life. The listener sees it as any PONG that nobody waits for.
        end_ping(connection)
    if not connection.state & DELIVERS:
        return False    # the listener has just disconnected
    if frame.msg_type == WSMsgType.PING and connection.options.enable_auto_pong:
        if connection.writing_paused:
            # A peer that sends pings and does not read: the answer to the last one is enough (RFC 6455 5.5.3).
            connection.pending_pong = frame.get_payload_as_bytes()
        elif can_send(connection):
            send_frame(connection, FIN_BIT | WSMsgType.PONG, <const uint8_t*>frame.payload_ptr, frame.payload_size)
            tell_flow(connection)
        return False
    if frame.msg_type == WSMsgType.CLOSE:
        note_close_received(connection, frame)
    return True


cdef bint is_pong_to_listener(Connection connection, WSFrame frame) except -1:
    try:
        return connection.listener.is_user_specific_pong(frame)
    except BaseException:
        connection.failed_at_pong = True    # deliver() tells whose fault it is
        raise


def deliver_rest(Connection connection not None):
    """What waited behind a callback that has stopped the loop."""
    if not connection.delivering:
        deliver(connection)


cdef int deliver_before_end(Connection connection) except -1:
    """The peer's stream has ended, perhaps in the same turn of the loop that a callback has stopped."""
    cdef size_t unread = 0
    while not connection.delivering and connection.state & DELIVERS and reader_unread(&connection.reader) != unread:
        unread = reader_unread(&connection.reader)
        deliver(connection)
    return 0
