# Memory: blocks that frames are received into, and what the connections of one thread share.

cdef enum:
    # One read takes what the kernel has gathered; larger reads were not measured to gain.
    SHARED_READ_SIZE = 256 * 1024
    # Frames up to this size are built in the thread's scratch memory, larger masked ones chunk by chunk. A send of 64 KiB at
    # a time was measured to cost a third more: every one wakes the peer. Memory that no frame ever needed is never touched.
    SCRATCH_SIZE = 1024 * 1024
    # How much of what answers a burst is gathered at most before it leaves.
    GATHER_SIZE = 64 * 1024
    # Unmasked payloads above this size are not copied: header and payload leave by one writev.
    COPY_LIMIT = 8 * 1024
    MASK_POOL_SIZE = 4096
    # A block for a large frame is used again up to this size: fresh memory costs a page fault for every 4 KiB.
    MAX_SPARE_SIZE = 16 * 1024 * 1024

# ... but no large frame may come any more: after this many seconds without one the block is given up.
cdef double SPARE_SECONDS = 1.0


@cython.final
cdef class ReadBuffer:
    """A block of memory that frames are received into and that payload views point into.

    The block lives as long as something refers to this object: the connection, a frame inside its callback, or a view.
    While views exist nobody writes here: whoever wants to receive takes another block (see `give_back`).
    """
    cdef:
        uint8_t* data
        Py_ssize_t capacity
        Py_ssize_t lent_from     # the transport may write lent_size bytes from here ...
        Py_ssize_t lent_size     # ... between get_buffer and buffer_updated, 0 at other times
        bint is_shared           # the thread's block, not one made for a large frame
        int writers              # how many times the transport has it open for writing
        long views               # how many payload views exist

    def __cinit__(self, Py_ssize_t capacity, bint is_shared=False):
        self.data = <uint8_t*>PyMem_RawMalloc(capacity)
        if self.data == NULL:
            raise MemoryError(f"no memory for a read buffer of {capacity} bytes")
        self.capacity = capacity
        self.is_shared = is_shared

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __len__(self):
        return self.lent_size

    # asyncio's TLS transports fill a buffer by slices of it.
    def __getitem__(self, index):
        return memoryview(self)[index]

    def __setitem__(self, index, data):
        memoryview(self)[index] = data

    def __getbuffer__(self, Py_buffer* view, int flags):
        # Only the transport comes here; payload views are made by WSFrame.
        if self.lent_size == 0:
            raise BufferError("a read buffer can be written by the connection's transport only")
        self.writers += 1
        view.obj = self
        fill_view(view, self.data + self.lent_from, self.lent_size, False, flags)

    def __releasebuffer__(self, Py_buffer* view):
        if view.readonly:
            ws_atomic_add(&self.views, -1)
        else:
            self.writers -= 1


cdef char* UNSIGNED_BYTE = b"B"


cdef inline void fill_view(Py_buffer* view, void* data, Py_ssize_t size, bint readonly, int flags) noexcept:
    # PyBuffer_FillInfo without its reference to view.obj, which Cython's slot function owns already.
    view.buf = data
    view.len = size
    view.readonly = readonly
    view.itemsize = 1
    view.format = UNSIGNED_BYTE if flags & PyBUF_FORMAT == PyBUF_FORMAT else NULL
    view.ndim = 1
    view.shape = &view.len if flags & PyBUF_ND == PyBUF_ND else NULL
    view.strides = &view.itemsize if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
    view.suboffsets = NULL
    view.internal = NULL


@cython.final
cdef class WriteBuffer:
    """Frames of one connection that wait to leave in one write: during a burst of received frames, or while corked."""
    cdef:
        uint8_t* data
        size_t size

    def __cinit__(self):
        self.data = <uint8_t*>PyMem_RawMalloc(GATHER_SIZE)
        if self.data == NULL:
            raise MemoryError("no memory for gathering frames")

    def __dealloc__(self):
        PyMem_RawFree(self.data)


@cython.final
cdef class ThreadMemory:
    """What the connections of one thread share, so that an idle connection owns no buffer.

    Reached through a thread-local, and by each connection through a reference taken when it was made: every use is on
    that one thread, so nothing here needs a lock.
    """
    cdef:
        ReadBuffer read_buffer      # None while a burst in it is being delivered
        ReadBuffer spare            # of a large frame that is done, None when there is none
        bint spare_wanted           # since its timer was set
        object spare_timer
        object spare_loop           # a weak reference to the loop of that timer
        WSFrame frame               # None while it is in a callback; handed out again unless somebody kept it
        WriteBuffer write_buffer    # None while a connection gathers in it
        uint8_t* scratch
        bytes mask_pool
        const char* masks           # the bytes of mask_pool
        Py_ssize_t mask_pool_used
        unsigned int fork_count
        int drains_in_a_row         # of drain(), none of which has given the event loop a turn

    def __cinit__(self):
        self.scratch = <uint8_t*>PyMem_RawMalloc(SCRATCH_SIZE + MAX_HEADER_SIZE)
        if self.scratch == NULL:
            raise MemoryError("no memory for the write buffer of a thread")
        self.mask_pool_used = MASK_POOL_SIZE

    def __dealloc__(self):
        PyMem_RawFree(self.scratch)

    def _on_spare_timer(self):
        loop = asyncio.get_running_loop()
        timing = self.spare_loop()
        if timing is not loop and timing is not None and not timing.is_closed():
            return      # a loop was run inside a callback of another: the timer that was set last looks after it
        if self.spare_wanted:
            self.spare_wanted = False
            self.spare_loop = weakref.ref(loop)
            self.spare_timer = loop.call_later(SPARE_SECONDS, self._on_spare_timer)
        else:
            if self.spare is not None:
                give_up(self.spare)
            self.spare = self.spare_timer = None


cdef object thread_local = threading.local()


cdef ThreadMemory get_thread_memory():
    memory = getattr(thread_local, "memory", None)
    if memory is None:
        memory = thread_local.memory = ThreadMemory()
    return <ThreadMemory>memory


cdef inline ReadBuffer take_read_buffer(ThreadMemory memory):
    # Whoever asks while the block is taken (a loop run inside a callback) gets another.
    if memory.read_buffer is None:
        memory.read_buffer = ReadBuffer(SHARED_READ_SIZE, True)
    return memory.read_buffer


cdef inline void give_up(ReadBuffer buffer) noexcept:
    """Free the memory even if idle connections refer to the block: each asks for another one before it reads."""
    if buffer.writers == 0 and ws_atomic_load(&buffer.views) == 0:
        PyMem_RawFree(buffer.data)
        buffer.data = NULL
        buffer.capacity = buffer.lent_size = 0


cdef inline ReadBuffer take_large_buffer(ThreadMemory memory, Py_ssize_t size):
    buffer = memory.spare
    if buffer is None or buffer.capacity < size:
        return ReadBuffer(size)
    memory.spare = None
    return buffer


cdef inline int give_back(ThreadMemory memory, ReadBuffer buffer, loop) except -1:
    # A block that views point into is left to them.
    if ws_atomic_load(&buffer.views) != 0:
        return 0
    if buffer.is_shared:
        if memory.read_buffer is None:
            memory.read_buffer = buffer
    elif SHARED_READ_SIZE // 4 < buffer.capacity <= MAX_SPARE_SIZE:
        if memory.spare is None or memory.spare.capacity < buffer.capacity:
            memory.spare = buffer
        memory.spare_wanted = True
        if memory.spare_timer is None or memory.spare_loop() is not loop:
            memory.spare_loop = weakref.ref(loop)
            memory.spare_timer = loop.call_later(SPARE_SECONDS, memory._on_spare_timer)
    return 0


cdef inline uint32_t next_mask(ThreadMemory memory) except? 0:
    """A masking key from the operating system's secure random source (RFC 6455 10.3), never used twice.

    The child of a fork starts a pool of its own.
    """
    cdef uint32_t key
    if memory.mask_pool_used == MASK_POOL_SIZE or memory.fork_count != ws_fork_count():
        memory.mask_pool = os.urandom(MASK_POOL_SIZE)
        memory.masks = PyBytes_AS_STRING(memory.mask_pool)
        memory.mask_pool_used = 0
        memory.fork_count = ws_fork_count()
    memcpy(&key, memory.masks + memory.mask_pool_used, sizeof(key))
    memory.mask_pool_used += sizeof(key)
    return key


ws_watch_forks()
