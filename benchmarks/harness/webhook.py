"""A receiver of Alertmanager's webhooks: a real HTTP server that keeps the messages."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.harness.receiver import Receiver


class Webhook(Receiver):
    """The receiver."""

    def __init__(self) -> None:
        super().__init__("/alerts")
        self.received: list[tuple[float, dict[str, Any]]] = []
        """The Unix time of each message, in seconds, and the message."""

    def take(self, body: bytes) -> None:
        """Keep a message."""
        self.received.append((time.time(), json.loads(body)))

    @property
    def url(self) -> str:
        """The URL that accepts alerts."""
        return f"{super().url}/alerts"

    def alerts(self) -> list[dict[str, Any]]:
        """Return the firing alerts of all messages, with repetitions."""
        return [alert for _, alert in self._firing()]

    def names(self) -> list[str]:
        """Return the names of these alerts."""
        return [alert["labels"]["alertname"] for alert in self.alerts()]

    def arrived_s(self) -> dict[tuple[str, str], float]:
        """Return the first arrival of each alert and camera. The camera is empty if the alert names none."""
        found: dict[tuple[str, str], float] = {}
        for at_s, alert in self._firing():
            found.setdefault((alert["labels"]["alertname"], alert["labels"].get("camera_id", "")), at_s)
        return found

    def _firing(self) -> list[tuple[float, dict[str, Any]]]:
        messages = list(self.received)
        return [(at_s, alert) for at_s, each in messages for alert in each["alerts"] if alert["status"] == "firing"]
