"""A stand-in for the HTTP client of an Alertmanager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from httpx2 import Response

from infra.monitor.alert_notifier import AlertNotifier

MakeNotifier = Callable[..., AlertNotifier]
"""Makes a notifier of the database at a URL; keyword arguments are those of `AlertNotifier`."""


class AlertmanagerStandIn:
    """An Alertmanager in memory: its silences, and the alerts that were posted to it."""

    def __init__(self) -> None:
        self.silences: dict[str, dict[str, Any]] = {}
        self.posted: list[dict[str, Any]] = []
        self.requests = 0
        self.rejects = ""
        """The id of an alert that it rejects, with the other alerts of the request."""

    def request(self, method: str, url: str, json: Any = None) -> Response:
        """Answer a request of Alertmanager's API."""
        self.requests += 1
        answer: Any = None
        if url.endswith("/alerts"):
            if self.rejects in [each["labels"]["alert_id"] for each in json]:
                return Response(400)
            self.posted += json
        elif method == "POST":
            silence_id = f"id-{len(self.silences)}"
            self.silences[silence_id] = json | {"id": silence_id, "status": {"state": "active"}}
        elif method == "DELETE":
            self.silences[url.rpartition("/")[2]]["status"] = {"state": "expired"}
        else:
            answer = list(self.silences.values())
        return Response(200, json=answer)

    def active(self) -> list[dict[str, Any]]:
        """Return the active silences."""
        return [each for each in self.silences.values() if each["status"]["state"] == "active"]

    def pop_posted(self) -> list[str]:
        """Return the ids of the alerts that were posted since the last call."""
        ids, self.posted = [each["labels"]["alert_id"] for each in self.posted], []
        return ids

    def close(self) -> None:
        """Do nothing: no connection is open."""
