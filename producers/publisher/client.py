"""paho's client with a shortcut for the packet that a camera receives most: the acknowledgement of a frame."""

from __future__ import annotations

from collections.abc import Callable

from schemas.transport.mqtt.internals import SocketClient


class FrameClient(SocketClient):
    """A client that calls `on_puback(mid, reason code)` instead of `on_publish`.

    paho 2.2 builds two objects with dozens of fields for each PUBACK, at a greater cost than sending the frame. A
    PUBACK with properties is left to paho. All of them are if a later paho handles them in another method.
    """

    def __init__(self, client_id: str, on_puback: Callable[[int, int], None]) -> None:
        super().__init__(client_id)
        self.max_inflight_messages = 0  # the window bounds the messages; with paho's bound they would wait in its queue
        self.max_queued_messages = 0
        self._acknowledged = on_puback
        self.on_publish = lambda _client, _data, mid, reason, _properties: on_puback(mid, reason.value)

    def handle_puback(self, body: bytearray) -> bool:
        """Report a PUBACK without properties; false leaves it to paho."""
        if not (len(body) == 2 or (len(body) in (3, 4) and not any(body[3:]))):
            return False
        mid = body[0] << 8 | body[1]
        if self.settle(mid):
            self._acknowledged(mid, body[2] if len(body) > 2 else 0)
        return True
