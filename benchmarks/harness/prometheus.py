"""Queries to a running Prometheus."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any


class Prometheus:
    """The HTTP API at host:port."""

    def __init__(self, address: str) -> None:
        self._address = address

    def by_label(self, expression: str, label: str) -> dict[str, float]:
        """Return the current values of `expression`, by the value of one of their labels."""
        found = self._ask("query", query=expression)
        return {each["metric"].get(label, ""): float(each["value"][1]) for each in found}

    def first_times(self, expression: str, begin_s: float, end_s: float) -> dict[str, float]:
        """Return the first time of each camera's series in Unix seconds, to a second."""
        found = self._ask("query_range", query=expression, start=f"{begin_s:.3f}", end=f"{end_s:.3f}", step="1")
        return {each["metric"].get("camera_id", ""): float(each["values"][0][0]) for each in found}

    def _ask(self, path: str, **parameters: str) -> list[dict[str, Any]]:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            document = json.load(answer)
        results: list[dict[str, Any]] = document["data"]["result"]
        return results
