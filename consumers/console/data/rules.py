"""The alert rules of Prometheus: the firing ones with their summary, and the names of all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from consumers.console.data.prometheus import fetch
from schemas.errors import BrokerError

_ORDER: Final = {"critical": 0, "warning": 1}
MOST_FIRING: Final = 200
"""Maximum number of firing rules that one reader gets."""
_LONGEST: Final = 500


@dataclass(frozen=True)
class FiringRule:
    """One alert of one rule that fires now."""

    name: str
    severity: str
    subject: str
    """The camera, else the role, that the alert is about."""
    summary: str
    description: str
    since_ms: int
    """Unix time in milliseconds since which the rule's expression holds."""

    @property
    def anchor(self) -> str:
        """The anchor of its runbook."""
        return self.name.lower()


@dataclass(frozen=True)
class Rules:
    """The state of all rules at one time."""

    firing: tuple[FiringRule, ...] = ()
    """Firing rules, the worst first, then the newest."""
    quiet: tuple[str, ...] = ()
    """Names of the rules that do not fire."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the firing rules, each once, in their order."""
        return tuple(dict.fromkeys(each.name for each in self.firing))


def read_rules(url: str) -> Rules:
    """Return the rules of the Prometheus at `url`.

    Blocks for some seconds at most. Raises BrokerError if Prometheus returns none.
    """
    document = fetch(f"{url}/api/v1/rules?type=alert")
    try:
        return rules_of(document)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BrokerError("Prometheus: expected a list of rules, got another document") from None


def rules_of(document: Any) -> Rules:
    """Return the rules in a response of `/api/v1/rules`.

    Raises KeyError, TypeError, ValueError or AttributeError for any other response.
    """
    found = [rule for group in document["data"]["groups"] for rule in group["rules"] if rule["type"] == "alerting"]
    firing = [_firing(rule, alert) for rule in found for alert in rule["alerts"] if alert["state"] == "firing"]
    firing.sort(key=lambda each: (_ORDER.get(each.severity, len(_ORDER)), -each.since_ms, each.name, each.subject))
    names = {each.name for each in firing}
    quiet = tuple(dict.fromkeys(str(rule["name"])[:_LONGEST] for rule in found if rule["name"] not in names))
    return Rules(tuple(firing), quiet)


def _firing(rule: Any, alert: Any) -> FiringRule:
    labels, annotations = alert["labels"], alert["annotations"]
    # Nanoseconds have more digits than Python parses.
    since = datetime.fromisoformat(alert["activeAt"].partition(".")[0].rstrip("Z") + "+00:00")
    return FiringRule(
        name=str(rule["name"])[:_LONGEST],
        severity=str(labels.get("severity", ""))[:_LONGEST],
        subject=str(labels.get("camera_id") or labels.get("role", ""))[:_LONGEST],
        summary=str(annotations.get("summary", ""))[:_LONGEST],
        description=str(annotations.get("description", ""))[:_LONGEST],
        since_ms=int(since.timestamp() * 1000),
    )
