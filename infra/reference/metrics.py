"""The reference of the metrics, from `schemas.metrics`."""

from __future__ import annotations

import ast
import inspect
from itertools import groupby

from prometheus_client import Counter, Gauge, Histogram

from infra.reference.markdown import code, page, paragraphs, table
from schemas import metrics as contract
from schemas.metrics import Metric


def metrics() -> str:
    """Return the page: every metric, by the role that exports it."""
    said = paragraphs(contract.__doc__).split("\n\n")
    parts = [*said[:2], "Every role serves its own at `/metrics` of the address that its option `--metrics` gives."]
    for heading, found in groupby(_found(), key=lambda each: each[0]):
        rows = [_row(metric) for _, metric in found]
        parts += [f"## {heading}", table(("metric", "type", "labels", "meaning"), rows)]
    return page("Metrics", *parts)


def _row(metric: Metric[contract.Kind]) -> tuple[str, ...]:
    buckets = f"; up to {', '.join(f'{edge:g}' for edge in metric.buckets)}" if metric.buckets else ""
    labels = ", ".join(code(label) for label in metric.labels)
    kind = next(each for each in (Counter, Gauge, Histogram) if issubclass(metric.kind, each))
    return code(metric.name), kind.__name__.lower(), labels, metric.help + buckets


def _found() -> list[tuple[str, Metric[contract.Kind]]]:
    """Yield every metric with the comment above its part of the module."""
    source = inspect.getsource(contract)
    headings = {number: line[2:] for number, line in enumerate(source.splitlines(), 1) if line.startswith("# ")}
    found = []
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) if isinstance(metric := getattr(contract, name), Metric):
                found.append((headings[max(line for line in headings if line < statement.lineno)], metric))
    return found
