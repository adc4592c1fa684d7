"""Samples of a role's `/metrics` for the live table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from infra.local.http import get

_Place = tuple[str, frozenset[tuple[str, str]]]
_START_TIME = "process_start_time_seconds"
_CUMULATIVE = ("counter", "histogram", "summary")


class Samples:
    """The last scraped values of several roles, summed over them."""

    def __init__(self) -> None:
        self._values: dict[_Place, float] = {}

    @classmethod
    def scrape(cls, addresses: Iterable[str], names: Sequence[str] = ()) -> Samples:
        """Scrape each host:port for the metrics `names` or for all; a role without an answer is left out."""
        samples = cls()
        chosen = f"?{urlencode([('name[]', name) for name in names])}" if names else ""
        for address in addresses:
            samples.add(_page(address, chosen))
        return samples

    def add(self, text: str) -> None:
        """Add one page of the Prometheus text format."""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.include({(sample.name, frozenset(sample.labels.items())): sample.value})

    def include(self, values: Mapping[_Place, float]) -> None:
        """Add each value to its series."""
        for place, value in values.items():
            self._values[place] = self._values.get(place, 0.0) + value

    def since(self, earlier: Samples) -> Samples:
        """Return the growth of every series since `earlier`; for counters and histograms."""
        growth = Samples()
        growth._values = {place: value - earlier._values.get(place, 0.0) for place, value in self._values.items()}
        return growth

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum over all series of `name` that carry `labels`."""
        wanted = set(labels.items())
        return sum(value for (found, having), value in self._values.items() if found == name and wanted <= having)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the series of `name` summed for each value of `label`; series without it go under the empty value."""
        found: dict[str, float] = {}
        for (series, having), value in self._values.items():
            if series == name:
                which = dict(having).get(label, "")
                found[which] = found.get(which, 0.0) + value
        return found

    def quantile(self, q: float, name: str) -> float | None:
        """Return the upper bound of the histogram bucket with the q-quantile; None without observations."""
        buckets: dict[float, float] = {}
        for (found, having), value in self._values.items():
            if found == f"{name}_bucket":
                bound = float(dict(having)["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
        total = buckets.get(float("inf"), 0.0)
        if not total:
            return None
        return next(bound for bound in sorted(buckets) if buckets[bound] >= q * total)


class RunTotals:
    """Samples of several roles over a whole run: the counts of a restarted or missing role stay."""

    def __init__(self) -> None:
        self._counting: dict[str, _Process] = {}
        self._ended: list[dict[_Place, float]] = []

    def scrape(self, addresses: Iterable[str]) -> Samples:
        """Scrape each host:port and add the counts of its earlier processes; gauges cover the answering roles."""
        totals = Samples()
        for address in addresses:
            text = _page(address)
            if text:
                self.note(address, text)
                totals.add(text)
            elif address in self._counting:
                totals.include(self._counting[address].counters)
        for counters in self._ended:
            totals.include(counters)
        return totals

    def note(self, address: str, text: str) -> None:
        """Remember the counters of one page; another start time means another process."""
        found, before = _Process.parse(text), self._counting.get(address)
        if before is not None and before.started != found.started:
            self._ended.append(before.counters)
        self._counting[address] = found


@dataclass(frozen=True)
class _Process:
    """One process of a role: its start time and its last counters."""

    started: float
    counters: dict[_Place, float]

    @classmethod
    def parse(cls, text: str) -> _Process:
        started, counters = 0.0, dict[_Place, float]()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _START_TIME:
                    started = sample.value
                elif family.type in _CUMULATIVE:
                    counters[sample.name, frozenset(sample.labels.items())] = sample.value
        return cls(started, counters)


def _page(address: str, query: str = "") -> str:
    """Return the metrics of host:port; empty when it does not answer."""
    try:
        answer = get(f"http://{address}/metrics{query}", timeout_s=2.0)
    except httpx2.HTTPError:
        return ""
    return answer.text if answer.is_success else ""
