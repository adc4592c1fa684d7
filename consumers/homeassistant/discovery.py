"""Home Assistant's MQTT discovery messages of a camera: a device with its entities, and their state.

The format is device discovery (release 2024.11 and later): one retained message for each device, see
https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2s
from typing import Any, Final

from consumers.cameras.state import State
from schemas.topics import DISCOVERY_ROOT, HOME_ROOT

ORIGIN: Final = "Pointillist"
LONGEST_STATE: Final = 255
"""Characters of a state that Home Assistant accepts."""
STATES: Final = tuple(state.value for state in State)


@dataclass(frozen=True)
class CameraSnapshot:
    """A camera's state for Home Assistant."""

    camera: str
    state: str
    """One of `STATES`."""
    class_name: str
    """The class, its group, or `unsure`."""
    backdoor: bool
    """Whether the camera has an alert about a backdoor trigger."""
    detail: str = ""
    """The reason for the state."""
    confidence: float = 0.0
    """Confidence of the last verdict, 0 to 1."""
    saved_share: float | None = None
    """Fraction of recently captured bytes that were not sent; None without recent frames."""
    class_group: str = ""
    """The group of classes that is certain, if any."""
    best: str = ""
    """The three best classes in words, if the network can be unsure."""
    saved_bytes: int = 0
    """Bytes saved since the announcer's start."""
    seen: tuple[str, ...] = ()
    """The classes and groups of its sightings that last."""

    def urgent_values(self) -> tuple[object, ...]:
        """Values whose change is published at once; other changes follow with these or later."""
        return self.state, self.class_name, self.class_group, self.backdoor, self.detail, self.seen

    def document(self) -> dict[str, Any]:
        """Return the state of all entities."""
        return {
            "state": self.state,
            "class": self.class_name[:LONGEST_STATE],
            "confidence": round(100 * self.confidence, 1),
            "saved_share": None if self.saved_share is None else round(100 * self.saved_share, 1),
            "saved_bytes": self.saved_bytes,
            "backdoor": "ON" if self.backdoor else "OFF",
            "sighting": "ON" if self.seen else "OFF",
            "seen": ", ".join(self.seen)[:LONGEST_STATE] or "none",
            "group": self.class_group[:LONGEST_STATE] or "none",
            "attributes": {"camera": self.camera, "detail": self.detail, "best": self.best},
        }


def status_topic(announcer: str) -> str:
    """Return the topic of an announcer's status: `online` while it reads the database, else `offline`."""
    return f"{HOME_ROOT}/status-{announcer}"


def state_topic(camera: str) -> str:
    """Return the topic of a camera's state."""
    return f"{HOME_ROOT}/{camera}"


def object_id(camera: str) -> str:
    """Return a unique id of a camera, in the letters that Home Assistant accepts."""
    return f"pointillist_{re.sub('[^a-z0-9_]', '_', camera)}_{blake2s(camera.encode(), digest_size=4).hexdigest()}"


def config_topic(camera: str) -> str:
    """Return the topic of the device's discovery message."""
    return f"{DISCOVERY_ROOT}/device/{object_id(camera)}/config"


def config(camera: str, version: str, announcer: str, console: str | None = None) -> dict[str, Any]:
    """Return the discovery message of the device from the announcer of this id; `console` is the URL of its page."""
    site, _, name = camera.partition("/")
    own = object_id(camera)

    def entity(key: str, platform: str, title: str, **more: object) -> dict[str, Any]:
        template = {"value_template": f"{{{{ value_json.{key} }}}}"}
        return {"platform": platform, "name": title, "unique_id": f"{own}_{key}", **template, **more}

    share = {"unit_of_measurement": "%", "state_class": "measurement", "suggested_display_precision": 1}
    return {
        "device": {
            "identifiers": [own],
            "name": name,
            "manufacturer": ORIGIN,
            "model": "camera",
            "sw_version": version,
            "suggested_area": site,
            **({"configuration_url": console} if console else {}),
        },
        "origin": {"name": ORIGIN, "sw_version": version},
        "availability_topic": status_topic(announcer),
        "state_topic": state_topic(camera),
        "qos": 1,
        "components": {
            "state": entity(
                "state",
                "sensor",
                "State",
                device_class="enum",
                options=list(STATES),
                json_attributes_topic=state_topic(camera),
                json_attributes_template="{{ value_json.attributes | tojson }}",
            ),
            "class": entity("class", "sensor", "Last class", icon="mdi:shape"),
            "group": entity("group", "sensor", "Group of classes", icon="mdi:shape-outline"),
            "confidence": entity("confidence", "sensor", "Confidence", icon="mdi:gauge", **share),
            "saved_share": entity("saved_share", "sensor", "Bytes saved", icon="mdi:content-save", **share),
            "saved_bytes": entity(
                "saved_bytes",
                "sensor",
                "Total bytes saved",
                device_class="data_size",
                unit_of_measurement="B",
                state_class="total_increasing",
            ),
            "backdoor": entity("backdoor", "binary_sensor", "Backdoor alert", device_class="safety"),
            "sighting": entity("sighting", "binary_sensor", "Sighting", device_class="occupancy"),
            "seen": entity("seen", "sensor", "Sightings of", icon="mdi:eye"),
        },
    }
