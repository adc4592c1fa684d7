"""Panels of the dashboard "fleet" on verdicts: by class, by correctness, and the proof that none is missing."""

from __future__ import annotations

from infra.grafana.panels import Figure, Graph, Limit
from infra.grafana.promql import Query, or_zero, rate, series
from schemas import metrics as m

ACCURACY = f"{rate(m.TRUTH, result='correct')} / {rate(m.TRUTH)}"
"""Labels of frames without an attack."""


def verdicts() -> list[Graph | Figure]:
    """Return the panels of the recognised classes."""
    return [
        Graph(
            "Verdicts by class",
            "Recorded verdicts a second: the ten most frequent classes.",
            "ops",
            (Query(f"topk(10, {rate(m.VERDICTS, 'class_name')})", "{{class_name}}"),),
            stacked=True,
        ),
        Graph(
            "Share of each class",
            "Share of the recorded verdicts: the ten most frequent classes. A camera that suddenly shows only one "
            "class stands out here.",
            "percentunit",
            (
                Query(
                    f"topk(10, {rate(m.VERDICTS, 'class_name')} / on() group_left() {rate(m.VERDICTS)})",
                    "{{class_name}}",
                ),
            ),
        ),
    ]


def _shown(picture: str, by: str = "") -> str:
    """Return the share of right verdicts on attacked or clean pictures of attacked cameras.

    Without attacked cameras, it covers all clean pictures.
    """
    right = rate(m.CAMERA_TRUTH, by, picture=picture, result="correct")
    share = f"{right} / ({rate(m.CAMERA_TRUTH, by, picture=picture)} > 0)"
    return f"{f'bottomk(10, {share})' if by else share} or on() ({ACCURACY})"


def red_team() -> list[Graph | Figure]:
    """Return robust and clean accuracy, and the wrong frames."""
    return [
        Graph(
            "Accuracy under attack",
            "Share of right verdicts on pictures of the red team's generators, and on clean pictures. Without an "
            "attack, both lines are equal.",
            "percentunit",
            (
                Query(ACCURACY, "clean"),
                Query(_shown("attacked"), "attacked"),
            ),
            limit=Limit(0.8, bad="below"),
        ),
        Graph(
            "Accuracy under attack by camera",
            "Share of right verdicts of each attacked camera, on attacked and on clean pictures: the ten lowest. "
            "Without an attack, clean pictures of all cameras.",
            "percentunit",
            (
                Query(_shown("attacked", "camera_id"), "attacked {{camera_id}}"),
                Query(_shown("clean", "camera_id"), "clean {{camera_id}}"),
            ),
            limit=Limit(0.8, bad="below"),
        ),
        Graph(
            "Wrong verdicts on clean pictures, frame by frame",
            "Wrong verdicts a second on frames with a known class, without attacked frames. A diamond is one of these"
            " frames.",
            "ops",
            (Query(rate(m.TRUTH, result="wrong"), "wrong", exemplars=True),),
        ),
        Graph(
            "Wrong verdicts under attack, frame by frame",
            "Wrong verdicts a second on pictures that the red team has changed. A diamond is one of these frames.",
            "ops",
            (
                Query(
                    or_zero(f"topk(10, {rate(m.CAMERA_TRUTH, 'camera_id', picture='attacked', result='wrong')})"),
                    "{{camera_id}}",
                    exemplars=True,
                ),
            ),
        ),
    ]


def conservation() -> list[Graph | Figure]:
    """Return the panels with the fates of all published frames."""
    return [
        Graph(
            "Published frames by fate",
            "All published frames with a record, by the last audit.",
            "none",
            (Query(f"max by (fate) ({series(m.AUDITED)})", "{{fate}}"),),
            stacked=True,
        ),
        Graph(
            "Age of the audit",
            "Time since the last successful audit.",
            "s",
            (Query(f"max({m.AUDIT_AGE.name})", "age"),),
            limit=Limit(300),
        ),
        Graph(
            "Waiting work",
            "Time that the frames in Kafka will take at the rate of the last minute. The autoscaler follows it.",
            "s",
            (Query(f"max({m.WORK_WAITING.name})", "waiting"),),
        ),
    ]
