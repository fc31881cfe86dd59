from typing_extensions import Buffer

from .._streams import MessageStream, Operation
from .exceptions import WebSocketDisconnect as WebSocketDisconnect

class WebStream(MessageStream):
    def send_text(self, message: str | Buffer) -> Operation[None]: ...
