"""Samples of a role's `/metrics`, as the live table needs them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families


class Samples:
    """The last scraped values of several roles, summed over them."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    @classmethod
    def scrape(cls, addresses: Iterable[str]) -> Samples:
        """Ask each host:port; one that does not answer is left out."""
        samples = cls()
        for address in addresses:
            try:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as answer:
                    samples.add(answer.read().decode())
            except (OSError, ValueError):
                continue
        return samples

    def add(self, text: str) -> None:
        """Add one page of the Prometheus text format."""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                place = (sample.name, frozenset(sample.labels.items()))
                self._values[place] = self._values.get(place, 0.0) + sample.value

    def sum(self, name: str, **labels: str) -> float:
        """The sum over all series of `name` that carry `labels`."""
        wanted = set(labels.items())
        return sum(value for (found, having), value in self._values.items() if found == name and wanted <= having)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The series of `name` summed for each value of `label`; those that lack it under the empty one."""
        found: dict[str, float] = {}
        for (series, having), value in self._values.items():
            if series == name:
                which = dict(having).get(label, "")
                found[which] = found.get(which, 0.0) + value
        return found

    def quantile(self, q: float, name: str) -> float | None:
        """The upper bound of the histogram bucket in which the q-quantile lies; None without observations."""
        buckets: dict[float, float] = {}
        for (found, having), value in self._values.items():
            if found == f"{name}_bucket":
                bound = float(dict(having)["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
        total = buckets.get(float("inf"), 0.0)
        if not total:
            return None
        return next(bound for bound in sorted(buckets) if buckets[bound] >= q * total)
