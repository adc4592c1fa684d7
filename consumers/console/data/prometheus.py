"""The system's history from Prometheus: requested by the console alone, bounded, cached, with short timeouts."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

import httpx2

from consumers.console.data.roles import PASSED, RoleState, from_series
from schemas import metrics
from schemas.errors import BrokerError
from schemas.transport.http import DIRECT

ANSWER_S: Final = 3.0
"""Timeout of one query in seconds. All queries together take `ALL_S` at most."""
ALL_S: Final = 5.0
KEPT_S: Final = 10.0
"""Lifetime of a cached result in seconds, failures included."""
POINTS: Final = 240
_SHORTEST_STEP_S: Final = 15
_LARGEST: Final = 2**22
_MOST_ROLES: Final = 8

Row = dict[int, float]
"""Values by Unix time in seconds."""


@dataclass(frozen=True)
class SeriesQuery:
    """A query with `{window}` for the range of a rate. Each value of the label `by` is one series."""

    name: str
    query: str
    by: str = ""


def _series(name: str, labels: Mapping[str, str]) -> str:
    where = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{where}}}"


def _rate(name: str, **labels: str) -> str:
    return f"sum(rate({_series(name, labels)}[{{window}}]))"


def _quantile(q: float) -> str:
    return f"histogram_quantile({q}, sum by (le) (rate({metrics.END_TO_END.name}_bucket[{{window}}])))"


_BYTES: Final = metrics.CAMERA_BYTES.name
_COMPARED: Final = metrics.CAMERA_COMPARED.name
ASKED: Final = (
    SeriesQuery("rate", _rate(metrics.RECORDED.name, outcome="recorded")),
    SeriesQuery("p50", _quantile(0.5)),
    SeriesQuery("p99", _quantile(0.99)),
    SeriesQuery("lag", f"sum({metrics.LAG.name})"),
    SeriesQuery("recorder_lag", f"sum({metrics.RECORDER_LAG.name})"),
    SeriesQuery("saved", f"1 - {_rate(_BYTES, kind='sent')} / ({_rate(_BYTES, kind='raw')} > 0)"),
    *(
        SeriesQuery(f"over_{way}", f"{_rate(_COMPARED, way='sent')} / ({_rate(_COMPARED, way=way)} > 0)")
        for way in ("raw", "jpeg", "codec")
    ),
    SeriesQuery("accuracy", f"{_rate(metrics.TRUTH.name, result='correct')} / ({_rate(metrics.TRUTH.name)} > 0)"),
    SeriesQuery("alerts", f"3600 * {_rate(metrics.ALERTS.name)}"),
    SeriesQuery("drift", f"max by (of) ({metrics.DRIFT.name})", by="of"),
    SeriesQuery("cpu", 'sum by (role) (rate(process_cpu_seconds_total{role!=""}[{window}]))', by="role"),
)
CHARTS: Final[tuple[dict[str, Any], ...]] = (
    {"title": "Frames per second", "series": [["rate", "frames/s"]]},
    {"title": "Latency from capture to record", "unit": "s", "series": [["p50", "p50"], ["p99", "p99"]]},
    {
        "title": "Lag: frames of the processors, records of the recorder",
        "series": [["lag", "frames"], ["recorder_lag", "records"]],
    },
    {"title": "Bytes saved", "unit": "%", "series": [["saved", "saved"]], "range": [0, 1]},
    {"title": "Alerts per hour", "series": [["alerts", "alerts"]]},
)
COMPARED: Final[dict[str, Any]] = {
    "title": "Bytes sent, compared with a plain camera",
    "series": [["over_raw", "÷ raw pixels"], ["over_jpeg", "÷ JPEG 90"], ["over_codec", "÷ bare codec"]],
}
TRUTH: Final[dict[str, Any]] = {
    "title": "Accuracy over frames with a known class",
    "unit": "%",
    "series": [["accuracy", "accuracy"]],
    "range": [0, 1],
}


class Prometheus:
    """A client of one Prometheus server. For one event loop."""

    def __init__(self, url: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.url = url.rstrip("/")
        self._clock_s = clock_s
        self._threads = ThreadPoolExecutor(len(ASKED), thread_name_prefix="prometheus")
        self._found: dict[int, tuple[float, dict[str, Any] | BrokerError]] = {}
        self._asking = asyncio.Lock()

    async def read_charts(self, length_s: int) -> dict[str, Any]:
        """Return `span_s`, `charts` and `columns` of the last `length_s`.

        Raises BrokerError, with a message for people, if Prometheus gives none.
        """
        async with self._asking:  # simultaneous readers share one request
            made_s, found = self._found.get(length_s, (-math.inf, BrokerError("")))
            if self._clock_s() - made_s > KEPT_S:
                try:
                    found = await self._ask(length_s)
                except BrokerError as error:
                    found = error
                self._found[length_s] = self._clock_s(), found
        if isinstance(found, BrokerError):
            raise found
        return found

    async def _ask(self, length_s: int) -> dict[str, Any]:
        step_s = max(_SHORTEST_STEP_S, length_s // POINTS)
        end_s = int(time.time()) // step_s * step_s
        begin_s = end_s - length_s // step_s * step_s
        loop = asyncio.get_running_loop()
        queries = [loop.run_in_executor(self._threads, self._query, each, begin_s, end_s, step_s) for each in ASKED]
        try:
            async with asyncio.timeout(ALL_S):
                answers = await asyncio.gather(*queries)
        except TimeoutError:
            for query in queries:
                query.cancel()
            raise BrokerError(f"Prometheus: expected a response within {ALL_S:g} s, got none") from None
        return to_charts(dict(zip((each.name for each in ASKED), answers, strict=True)), begin_s, end_s, step_s)

    def _query(self, asked: SeriesQuery, begin_s: int, end_s: int, step_s: int) -> dict[str, Row]:
        window = f"{max(60, 2 * step_s)}s"
        fields = {
            "query": asked.query.replace("{window}", window), "start": begin_s, "end": end_s, "step": step_s,
            "timeout": f"{ANSWER_S:g}s",
        }  # fmt: skip
        document = fetch(f"{self.url}/api/v1/query_range?{urlencode(fields)}")
        try:
            return rows_of(document, asked.by)
        except ValueError as error:
            raise BrokerError(f"Prometheus: expected a response, got {error}") from None

    def close(self) -> None:
        """Close without waiting."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def fetch(url: str) -> Any:
    """Return the JSON document at a URL of Prometheus' HTTP API, bounded in time and size.

    Raises BrokerError if Prometheus gives none.
    """
    give_up_s = time.monotonic() + ANSWER_S
    body = bytearray()
    try:
        with _client().stream("GET", url, timeout=ANSWER_S) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                body += part
                if time.monotonic() > give_up_s:
                    raise TimeoutError
                if len(body) > _LARGEST:
                    raise BrokerError(f"Prometheus: expected a response of at most {_LARGEST} bytes, got more")
        return json.loads(body)
    except httpx2.HTTPStatusError as error:
        raise BrokerError(f"Prometheus: expected status 200, got {error.response.status_code}") from None
    except (httpx2.TimeoutException, TimeoutError):
        raise BrokerError(f"Prometheus: expected a response within {ANSWER_S:g} s, got none") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, RecursionError) as error:  # the last two: invalid JSON
        raise BrokerError(f"Prometheus: expected a response, got {error}") from None


@cache
def _client() -> httpx2.Client:
    # No keep-alive: queries are rare, and a server may restart between two.
    return httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=0), mounts=DIRECT)


_ROLE_QUERIES: Final = {
    "up": 'min by (role) (up{job="pointillist"})',
    "backlog": f"sum by (role) ({metrics.LAG.name} or {metrics.RECORDER_LAG.name} or {metrics.SPOOL_FRAMES.name})",
    "frames": f"sum by (role) ({' or '.join(_series(name, labels) for name, labels in PASSED)})",
    "restarts": 'sum by (role) (changes(process_start_time_seconds{job="pointillist"}[1d]))',
}


def read_roles(url: str) -> list[RoleState]:
    """Return the roles that the Prometheus at `url` scrapes. Blocks for some seconds.

    Raises BrokerError if Prometheus gives none.
    """
    answers = {name: _by_role(url, query) for name, query in _ROLE_QUERIES.items()}
    if not answers["up"]:
        raise BrokerError("Prometheus: expected scraped roles, got none")
    return from_series(answers)


def _by_role(url: str, query: str) -> dict[str, float]:
    document = fetch(f"{url}/api/v1/query?{urlencode({'query': query})}")
    match document:
        case {"status": "success", "data": {"resultType": "vector", "result": list(result)}}:
            pass
        case _:
            raise BrokerError("Prometheus: expected a response of `query`, got another document")
    found: dict[str, float] = {}
    for each in result:
        match each:
            case {"metric": {"role": str(role)}, "value": [_, str(value)]}:
                found[role[:40]] = float(value)
    return found


def rows_of(document: Any, by: str) -> dict[str, Row]:
    """Return the series of a `query_range` response by a label's value ("" without a label).

    Raises ValueError for an invalid response.
    """
    match document:
        case {"status": "success", "data": {"resultType": "matrix", "result": list(result)}}:
            pass
        case _:
            raise ValueError("Prometheus: expected a response of `query_range`")
    found: dict[str, Row] = {}
    for each in result:
        match each:
            case {"metric": dict(labels), "values": list(values)}:
                name = str(labels.get(by, ""))[:40] if by else ""
                found[name] = {int(at): float(value) for at, value in values if math.isfinite(float(value))}
            case _:
                raise ValueError("Prometheus: expected series of `query_range`")
    return found


def to_charts(found: dict[str, dict[str, Row]], begin_s: int, end_s: int, step_s: int) -> dict[str, Any]:
    """Return the responses by name as charts and columns, with null for missing values."""
    times = range(begin_s, end_s + 1, step_s)
    columns: dict[str, list[float | None]] = {"t": [float(at) for at in times]}
    for asked in ASKED:
        rows = found[asked.name]
        busiest = sorted(rows, key=lambda name: -sum(rows[name].values()))[:_MOST_ROLES] if asked.by else [""]
        for name in sorted(busiest):
            row = rows.get(name, {})
            column = f"{asked.name} {name}" if asked.by else asked.name
            columns[column] = [None if (value := row.get(at)) is None else float(f"{value:.5g}") for at in times]
    charts = list(CHARTS)
    if any(value is not None for value in columns["over_codec"]):
        charts.append(COMPARED)
    if any(value is not None for value in columns["accuracy"]):
        charts.append(TRUTH)
    drift = [[name, name.removeprefix("drift ")] for name in columns if name.startswith("drift ")]
    if drift:
        charts.append({"title": "Drift of the worst processor ÷ its limit", "series": drift, "limit": 1})
    cpu = [[name, name.removeprefix("cpu ")] for name in columns if name.startswith("cpu ")]
    if cpu:
        charts.append({"title": "CPU, cores of all roles", "summed": True, "series": cpu})
    if not any(value is not None for name, column in columns.items() if name != "t" for value in column):
        columns = {name: [] for name in columns}
    return {"span_s": (begin_s, end_s), "charts": charts, "columns": columns}
