"""The publisher: a camera's frames from its spool to the MQTT broker, until they are confirmed."""

from producers.publisher.broker import Broker
from producers.publisher.publisher import Publisher
from producers.publisher.settings import LinkSettings, WindowSettings

__all__ = ["Broker", "LinkSettings", "Publisher", "WindowSettings"]
