"""The figures of the live red team: a summary of the runs of `benchmarks.models.red_team_live`, and a page."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from lab.results.markdown import markdown
from lab.statistics import wilson

ALERT: Final = "PointillistAttackSucceeds"
CALM_S: Final = 20.0
ATTACK_S: Final = 60.0
WITHIN_S: Final = 30.0
HARDER: Final = 1.5
DROP: Final = 0.25

Result = dict[str, Any]


class Condition(NamedTuple):
    """The defences in place against the attack."""

    bundle: str
    """`plain` or `hardened`."""
    mode: str
    drop: float
    what: str
    target: str = "plain"
    """The network that the attacker's generator was made against: `plain` or `hardened`."""


CONDITIONS: Final = {
    "bare": Condition("plain", "none", 0.0, "the bare plain network"),
    "plain": Condition("plain", "default", DROP, "the plain network behind the drop"),
    "hardened": Condition("hardened", "default", DROP, "the hardened network behind the drop"),
    "white-box": Condition(
        "hardened", "default", DROP, "the same, attacked by the generator that was made against it", "hardened"
    ),
}


def judged(runs: list[Result]) -> list[Result]:
    """Return the figures of each frame size over its seeds: accuracies, gain of hardening, detection delay."""
    found = []
    for size in sorted({tuple(each["size"]) for each in runs}, key=lambda size: size[0] * size[1]):
        row: Result = {"size": list(size)}
        for name in CONDITIONS:
            mine = [each for each in runs if each["condition"] == name and tuple(each["size"]) == size]
            if not mine:
                continue
            frames, right = (sum(each["attacked"][place] for each in mine) for place in (0, 1))
            clean, clean_right = (sum(each["clean"][place] for each in mine) for place in (0, 1))
            waits = [wait for each in mine for wait in each["seconds_to_alert"].values()]
            after = [
                wait for each in mine for wait in each["seconds_from_record_to_alert"].values() if wait is not None
            ]
            row[name] = {
                "frames_attacked": frames,
                "accuracy": right / frames,
                "interval": list(wilson(right, frames)),
                "accuracy_clean": clean_right / clean,
                "alerted": sum(wait is not None for wait in waits),
                "cameras": len(waits),
                "slowest_alert_s": max((wait for wait in waits if wait is not None), default=None),
                "slowest_alert_from_record_s": max(after, default=None),
                "false_alerts": sum(len(each["false_alerts"]) for each in mine),
                "frames_lost": sum(each["audit"]["frames_lost"] for each in mine),
                "records_agree": all(each["records_agree"] for each in mine),
                "latency_p99_s": max(each["latency_s"]["p99"] for each in mine),
            }
        if "plain" in row and "hardened" in row and row["plain"]["accuracy"]:
            row["hardened_over_plain"] = row["hardened"]["accuracy"] / row["plain"]["accuracy"]
        found.append(row)
    return found


def page(document: Result) -> str:
    """Return the Markdown page of a result."""
    plan = document["plan"]
    lines = []
    for row in document["figures"]:
        for name, condition in CONDITIONS.items():
            if name not in row:
                continue
            each = row[name]
            low, high = each["interval"][-2:]
            slowest = "none"
            if each["slowest_alert_s"] is not None:
                slowest = f"{each['slowest_alert_s']:.1f} s ({each['slowest_alert_from_record_s']:.1f} s)"
            lines.append([
                _size(row), condition.what, f"{each['accuracy']:.3f} [{low:.3f}, {high:.3f}]",
                f"{each['accuracy_clean']:.3f}", f"{each['alerted']} of {each['cameras']}, {slowest}",
                str(each["false_alerts"]), str(each["frames_attacked"]), str(each["frames_lost"]),
                f"{each['latency_p99_s']:.2f} s",
            ])  # fmt: skip
    ratios = [
        [_size(row), f"{row['hardened_over_plain']:.2f}"] for row in document["figures"] if "hardened_over_plain" in row
    ]
    costs = [[_size(cost), f"{cost['ms']:.2f}", f"{cost['ms_p95']:.2f}"] for cost in document["lens_ms"]]
    loads = [each["load_before"] for each in document["runs"]]
    heads = ["frames", "what stands against it", "right under attack", "right on clean", "alerted, slowest",
             "false alerts", "attacked frames", "lost", "p99 latency"]  # fmt: skip
    return "\n\n".join([
        "# The red team live",
        f"Made by `{document['command']}` on {document['machine']}; the load average before the runs was "
        f"{min(loads):.1f} to {max(loads):.1f}.",
        f"{plan['cameras']} cameras at {plan['fps']:g} fps; after {CALM_S:g} s of calm the generator "
        f"`{plan['against_plain']}`, in the last row `{plan['against_hardened']}` (ε = {plan['eps']:g}, target "
        f"{plan['target']}), attacks {plan['attacked']} of them for {ATTACK_S:g} s before the drop. Plain is "
        f"`{plan['plain']}`, hardened `{plan['hardened']}`. Accuracies are "
        "what Prometheus holds at the end, with 95 % intervals (Wilson) of single frames: a dozen show one place, so "
        f"these are too narrow. Alerts are `{ALERT}`, in seconds from the capture of a camera's first attacked frame, "
        "in brackets from its record: the difference is what the machine's load keeps a verdict waiting. "
        "It is silent where the two accuracies do not part by a fifth.",
        markdown(heads, lines),
        f"Hardened ÷ plain behind the drop (asked for: ≥ {HARDER:g}; alerts within {WITHIN_S:g} s):",
        markdown(["frames", "ratio"], ratios) or "Not measured.",
        "What an attacked frame costs the fleet's process, CPU time of its one thread for attacks:",
        markdown(["frame", "ms, median", "ms, 95 %"], costs),
        "A generator is made against one bare network and does not adapt to masks. What an attacker "
        "gets who adapts to all but the key is in the other pages of this folder.",
    ]) + "\n"  # fmt: skip


def _size(row: Result) -> str:
    return "×".join(map(str, row["size"]))
