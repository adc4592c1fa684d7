"""The panels' forms of PromQL, around the names of `schemas.metrics`."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from schemas.metrics import Metric

WINDOW = "$__rate_interval"
"""Window of a rate: four scrapes or more, and at least the distance of two points of a panel."""
CAMERAS = {"camera_id": "$site/$camera"}
"""Labels that select the series of cameras by a dashboard's variables."""
ROLES = {"role": "$role"}
"""Labels that select the series of roles."""


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expression: str
    legend: str = ""
    exemplars: bool = False
    """Whether the panel shows exemplars: the frames of a counter's latest increments."""


def selector(name: str, **labels: str) -> str:
    """Return the series of `name` that carry `labels`."""
    where = ", ".join(f'{label}{"=~" if "$" in value else "="}"{value}"' for label, value in labels.items())
    return f"{name}{{{where}}}" if where else name


def series(metric: Metric[Counter] | Metric[Gauge] | Metric[Histogram], suffix: str = "", **labels: str) -> str:
    """Return the series of a metric that carry `labels`; for a metric by camera, those of the chosen cameras."""
    return selector(f"{metric.name}{suffix}", **(CAMERAS if "camera_id" in metric.labels else {}), **labels)


def total(metric: Metric[Gauge], by: str = "", **labels: str) -> str:
    """Return the sum of a gauge's series, grouped by the labels in `by`."""
    return f"{_sum(by)}({series(metric, **labels)})"


def rate(metric: Metric[Counter], by: str = "", **labels: str) -> str:
    """Return the events a second of the series that carry `labels`, summed by the labels in `by`."""
    return _rate(metric, "", by, **labels)


def or_zero(expression: str) -> str:
    """Return the expression, or 0 without any series: no events count as 0."""
    return f"{expression} or on() vector(0)"


def mean(metric: Metric[Histogram], **labels: str) -> str:
    """Return the mean of a histogram's observations."""
    return f"{_rate(metric, '_sum', **labels)} / {_rate(metric, '_count', **labels)}"


def quantile(q: float, metric: Metric[Histogram], by: str = "", **labels: str) -> str:
    """Return the q-quantile of a histogram's observations, for each value of the label `by`."""
    buckets = _rate(metric, "_bucket", f"le, {by}" if by else "le", **labels)
    return f"histogram_quantile({q}, {buckets})"


def quantiles(metric: Metric[Histogram], **labels: str) -> tuple[Query, ...]:
    """Return the median, the 95th and the 99th percentile."""
    return tuple(Query(quantile(q, metric, **labels), f"p{round(100 * q)}") for q in (0.5, 0.95, 0.99))


def _rate(metric: Metric[Counter] | Metric[Histogram], suffix: str = "", by: str = "", **labels: str) -> str:
    return f"{_sum(by)}(rate({series(metric, suffix, **labels)}[{WINDOW}]))"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"
