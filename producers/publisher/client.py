"""paho's client with a shortcut for what a camera receives most: the broker's acknowledgement of a frame."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Literal

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode


class FrameClient(Client):
    """A client that calls `on_puback(mid, reason code)` instead of `on_publish`.

    paho 2.2 builds two objects with dozens of fields for each PUBACK, at a greater cost than sending the frame. A
    PUBACK with properties is left to paho. All of them are if a later paho handles them in another method.
    """

    def __init__(self, *arguments: Any, on_puback: Callable[[int, int], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.max_inflight_messages = 0  # the window bounds them; with a bound paho would have to refill from its queue
        self.max_queued_messages = 0
        self._on_puback = on_puback
        self.dialled: socket.socket | None = None
        """The connection that `reconnect` uses, because it must not block the loop that calls it."""
        self.on_publish = lambda _client, _data, mid, reason, _properties: on_puback(mid, reason.value)

    def _create_socket_connection(self) -> socket.socket:
        dialled, self.dialled = self.dialled, None
        if dialled is None:
            raise OSError("expected a connection that is made already, there is none")
        return dialled

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if cmd != "PUBACK" or not (len(packet) == 2 or (len(packet) in (3, 4) and not any(packet[3:]))):
            return super()._handle_pubackcomp(cmd)
        mid = packet[0] << 8 | packet[1]
        with self._out_message_mutex:
            known = self._out_messages.pop(mid, None)
        if known is not None:
            self._inflight_messages -= 1
            self._on_puback(mid, packet[2] if len(packet) > 2 else 0)
        return MQTTErrorCode.MQTT_ERR_SUCCESS
