"""The metrics and labels of PromQL expressions, compared with `schemas.metrics`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from prometheus_client import Histogram

from schemas import metrics
from schemas.metrics import Metric

FOREIGN = {"up", "ALERTS"}
"""Series that Prometheus itself provides."""
SCRAPED = {"job", "instance", "role", "namespace", "pod", "le"}
"""Labels that a scrape or a histogram adds."""
CONTRACT: dict[str, Metric[Any]] = {m.name: m for m in vars(metrics).values() if isinstance(m, Metric)}

_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"([a-zA-Z_]\w*)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_LABELS = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_WORD = re.compile(r"\b[a-zA-Z_]\w*\b(?!\s*\()")
_OPERATORS = {"or", "and", "unless", "bool", "offset", "group_left"}


def metric_names(expression: str) -> set[str]:
    """Return the names of the series in `expression`."""
    bare = _LABELS.sub(" ", re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", _STRING.sub('""', expression)))
    return set(_WORD.findall(bare)) - _OPERATORS - {"by", "on"}


def family(name: str) -> Metric[Any] | None:
    """Return the metric of the contract that has a series of this name, or None."""
    whole = re.sub("_(bucket|sum|count)$", "", name)
    if whole != name and whole in CONTRACT:
        return CONTRACT[whole] if CONTRACT[whole].kind is Histogram else None
    found = CONTRACT.get(name)
    return found if found is not None and found.kind is not Histogram else None


def unknown_names(expression: str) -> Iterator[str]:
    """Yield each metric, label and value of a label in `expression` that the contract does not have."""
    known: set[str] = set(SCRAPED)
    for name in metric_names(expression):
        metric = family(name)
        if metric is not None:
            known |= set(metric.labels)
        elif name not in FOREIGN and not name.startswith("process_"):
            yield name
    for group in _LABELS.findall(expression):
        yield from (label for label in re.findall(r"\w+", group) if label not in known)
    for name, matchers in _SELECTOR.findall(expression):
        metric = family(name)
        for label, value in _MATCHER.findall(matchers):
            if metric is None or label in SCRAPED:
                continue
            if label not in metric.labels:
                yield f"{name}.{label}"
            # The help text of a metric lists the values of its label.
            if "$" not in value:  # Grafana fills in the values of variables
                yield from (f"{name}.{label}={v}" for v in value.split("|") if not re.search(rf"\b{v}\b", metric.help))
