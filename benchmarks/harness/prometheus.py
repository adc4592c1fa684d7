"""Queries to a running Prometheus."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any, Final

ANSWER_S: Final = 60.0
"""Timeout of an answer, in seconds."""


class Prometheus:
    """The HTTP API at host:port."""

    def __init__(self, address: str) -> None:
        self._address = address

    def by_label(self, expression: str, label: str) -> dict[str, float]:
        """Return the current values of `expression`, by the value of one of their labels."""
        found = self.ask("query", query=expression)["result"]
        return {each["metric"].get(label, ""): float(each["value"][1]) for each in found}

    def first_times(self, expression: str, begin_s: float, end_s: float) -> dict[str, float]:
        """Return the first time of each camera's series in Unix seconds, to a second."""
        found = self.ask("query_range", query=expression, start=f"{begin_s:.3f}", end=f"{end_s:.3f}", step="1")
        return {each["metric"].get("camera_id", ""): float(each["values"][0][0]) for each in found["result"]}

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of the answer to a request."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            return json.load(answer)["data"]
