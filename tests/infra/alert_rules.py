"""The shipped alert rules, and a YAML reader.

libyaml takes a tenth of the time of PyYAML's own parser, at each collection of the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from infra.local.prometheus import RULES


def documents(text: str) -> Iterator[Any]:
    """Yield the documents of a YAML file."""
    yield from yaml.load_all(text, yaml.CSafeLoader)


ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for file in sorted(RULES.glob("*.yml"))
    for document in documents(file.read_text())
    for group in document["groups"]
    for rule in group["rules"]
}
"""The alert rules by name."""
