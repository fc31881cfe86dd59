"""The assembler of messages on plain bytes, for tests and fuzzing; the connection feeds it from C, as this does."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from picows._codec cimport Frame, OPCODE_CONTROL_BIT
from picows._messages cimport (
    ERR_MESSAGE_TOO_BIG, ERR_MESSAGE_UNFINISHED, ERR_RSV1_MISPLACED, ERR_RSV1_UNEXPECTED, ERR_RSV_RESERVED,
    ERR_STRAY_CONTINUATION, ERR_TEXT_NOT_UTF8, ERR_TOO_MANY_FRAGMENTS, MESSAGE_MORE, MESSAGE_READY, MessageAssembler,
    MessageStatus, message_status_close_code, message_status_sentence,
)

from collections import namedtuple

from tests.codec.bindings import CodecError


STATUS_NAMES = {
    ERR_RSV_RESERVED: "ERR_RSV_RESERVED",
    ERR_RSV1_UNEXPECTED: "ERR_RSV1_UNEXPECTED",
    ERR_RSV1_MISPLACED: "ERR_RSV1_MISPLACED",
    ERR_STRAY_CONTINUATION: "ERR_STRAY_CONTINUATION",
    ERR_MESSAGE_UNFINISHED: "ERR_MESSAGE_UNFINISHED",
    ERR_MESSAGE_TOO_BIG: "ERR_MESSAGE_TOO_BIG",
    ERR_TOO_MANY_FRAGMENTS: "ERR_TOO_MANY_FRAGMENTS",
    ERR_TEXT_NOT_UTF8: "ERR_TEXT_NOT_UTF8",
}

Message = namedtuple("Message", "opcode payload copied")


cdef class MessageReader:
    """A MessageAssembler fed with frames as Python sees them; its arguments.

    Every payload lies in a block of its own from malloc() that is gone after the call, so that a sanitizer guards both
    its ends.
    """

    cdef MessageAssembler assembler

    def __cinit__(self, max_message_size, inflater=None):
        self.assembler = MessageAssembler(max_message_size, inflater)

    @property
    def room(self):
        """The largest payload in bytes that the next frame may have."""
        return self.assembler.room()

    @property
    def held(self):
        """How many bytes the assembler has taken for the message under way."""
        return self.assembler.joined_capacity

    def feed(self, uint8_t opcode, bytes payload not None=b"", *, bint fin=True, bint rsv1=False, bint rsv2=False,
             bint rsv3=False):
        """Take one frame of any known opcode; return the Message that it completes, or None.

        `copied` says whether the message lies in memory of its own. Raises CodecError for a fault of the peer, MemoryError,
        and what the inflater raises.
        """
        cdef MessageAssembler assembler = self.assembler
        cdef Frame frame
        cdef MessageStatus status
        cdef bytes message
        frame.opcode = opcode
        frame.fin, frame.rsv1, frame.rsv2, frame.rsv3 = fin, rsv1, rsv2, rsv3
        frame.payload_size = <size_t>len(payload)
        frame.payload = <uint8_t*>malloc(max(frame.payload_size, <size_t>1))
        if frame.payload == NULL:
            raise MemoryError(f"no block of {len(payload)} bytes")
        memcpy(frame.payload, PyBytes_AS_STRING(payload), frame.payload_size)
        try:
            status = assembler.check_control(&frame) if opcode & OPCODE_CONTROL_BIT else assembler.feed(&frame)
            if status == MESSAGE_MORE:
                return None
            if status != MESSAGE_READY:
                raise CodecError(
                    STATUS_NAMES[status], message_status_close_code(status), message_status_sentence(status).decode("ascii"))
            message = PyBytes_FromStringAndSize(<char*>assembler.payload, <Py_ssize_t>assembler.size)
            if assembler.owner is not None and message != assembler.owner:
                raise AssertionError("the message is not the whole of its owner")
            return Message(assembler.opcode, message, assembler.owner is not None)
        finally:
            assembler.release()
            free(frame.payload)
