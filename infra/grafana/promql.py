"""The few forms of PromQL that the panels are made of, around the names of `schemas.metrics`."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from schemas.metrics import Metric

WINDOW = "1m"
"""What a rate looks back on: twelve scrapes at five seconds, so that one that is missed does not show."""


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expression: str
    legend: str = ""


def selector(name: str, **labels: str) -> str:
    """The series of `name` that carry `labels`."""
    where = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{where}}}" if where else name


def total(metric: Metric[Gauge], by: str = "", **labels: str) -> str:
    """The sum of a gauge's series, but for the labels in `by`."""
    return f"{_sum(by)}({selector(metric.name, **labels)})"


def rate(metric: Metric[Counter], by: str = "", **labels: str) -> str:
    """Events a second, of the series that carry `labels`, summed but for the labels in `by`."""
    return _rate(metric.name, by, **labels)


def or_zero(expression: str) -> str:
    """0 when there is no series at all: nothing happened is 0."""
    return f"{expression} or on() vector(0)"


def mean(metric: Metric[Histogram]) -> str:
    """Mean of a histogram's observations."""
    return f"{_rate(f'{metric.name}_sum')} / {_rate(f'{metric.name}_count')}"


def quantile(q: float, metric: Metric[Histogram], by: str = "") -> str:
    """The q-quantile of a histogram's observations, for each value of the label `by`."""
    buckets = _rate(f"{metric.name}_bucket", f"le, {by}" if by else "le")
    return f"histogram_quantile({q}, {buckets})"


def quantiles(metric: Metric[Histogram]) -> tuple[Query, ...]:
    """The median, the 95th and the 99th percentile."""
    return tuple(Query(quantile(q, metric), f"p{round(100 * q)}") for q in (0.5, 0.95, 0.99))


def _rate(name: str, by: str = "", **labels: str) -> str:
    return f"{_sum(by)}(rate({selector(name, **labels)}[{WINDOW}]))"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"
