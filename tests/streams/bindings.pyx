"""What classes on top of `picows._streams` use of it in C, as something to call from Python."""

from picows._streams cimport MessageStream
from picows.picows cimport WSFrame, WSMsgType


cdef class Dialect(MessageStream):
    """Overrides what a message is, and shows the methods that only Cython sees."""

    cdef object message_of(self, WSFrame frame):
        text = frame.get_payload_as_bytes()
        if text == b"nothing":
            return None
        if text == b"wrong":
            return [text]
        return text.upper()

    def take_now(self):
        return self.take()

    def send_at_once(self, msg_type, message):
        cdef int value = msg_type
        return self.send_now(<WSMsgType>value, message)

    def sending_as(self, msg_type, message):
        return self.sending(msg_type, message)

    def end_here(self):
        self.end()
