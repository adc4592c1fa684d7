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
            if (page := _fetch(address, chosen)) is not None:
                samples.include(page.values)
        return samples

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
        self._counting: dict[str, Page] = {}
        """The last page of each address."""
        self._ended = Samples()
        """The sums of the counters of ended processes."""

    def scrape(self, addresses: Iterable[str]) -> Samples:
        """Scrape each host:port and add the counts of its earlier processes; gauges cover the answering roles."""
        totals = Samples()
        for address in addresses:
            page, before = _fetch(address), self._counting.get(address)
            if page is not None:
                if before is not None and before.started != page.started:
                    self._ended.include(before.counters)
                self._counting[address] = page
                totals.include(page.values)
            elif before is not None:
                totals.include(before.counters)
        totals.include(self._ended._values)
        return totals


@dataclass(frozen=True)
class Page:
    """The metrics of one process: its start time, all samples, and those of counters."""

    started: float
    values: dict[_Place, float]
    counters: dict[_Place, float]

    @classmethod
    def parse(cls, text: str) -> Page:
        """Read the Prometheus text format. Raises ValueError for another one."""
        values, counters = dict[_Place, float](), dict[_Place, float]()
        for family in text_string_to_metric_families(text):
            found = {(each.name, frozenset(each.labels.items())): each.value for each in family.samples}
            values |= found
            counters |= found if family.type in _CUMULATIVE else {}
        return cls(values.get((_START_TIME, frozenset()), 0.0), values, counters)


def _fetch(address: str, query: str = "") -> Page | None:
    """Return the metrics of host:port; None if it does not answer, or another program answers there."""
    try:
        answer = get(f"http://{address}/metrics{query}", timeout_s=2.0)
        return Page.parse(answer.text) if answer.is_success else None
    except (httpx2.HTTPError, ValueError):
        return None
