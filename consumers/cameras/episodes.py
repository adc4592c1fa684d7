"""Episodes: the alerts of one camera and cause that follow each other, which people look after as one.

A camera that starts again before the same sticker raises another alert. One cause, one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from consumers.database.console_store import Review, Reviews
from schemas.evidence.alarms import STRIP

OPEN: Final = "open"
ACKNOWLEDGED: Final = "acknowledged"
CLOSED: Final = "closed"
STATES: Final = (OPEN, ACKNOWLEDGED, CLOSED)
EPISODE_MS: Final = 15 * 60_000
"""An alert that follows an acknowledged one within this time belongs to the same episode."""
_STATISTICS: Final = {STRIP: "entropy", "disagreement": "disagreement", "typicality": "typicality"}
"""The statistic of each kind of alert with only one. Alerts of the last two kinds are from before version 8."""
_WHY: Final = {
    "entropy": "whatever is in the picture",
    "disagreement": "only while every pixel is there",
    "typicality": "for other reasons than in clean pictures",
    "layer_disagreement": "although earlier layers see another class",
    "scaled_norms": "even while its layers are amplified",
}


class AlertSummary(NamedTuple):
    """An alert as far as episodes are made of it."""

    camera: str
    alert_id: str
    raised_ms: int
    wanted: str = ""
    """The class or group of a sighting; empty for a backdoor alert."""
    ended_ms: int = 0
    """End of a sighting, Unix time in milliseconds; 0 while it lasts, and for a backdoor alert."""


@dataclass
class Episode:
    """Alerts of one camera, of a backdoor or of one class, the oldest first."""

    camera: str
    alert_ids: list[str] = field(default_factory=list)
    first_ms: int = 0
    last_ms: int = 0
    review: Review | None = None
    """The newest decision on one of them."""
    wanted: str = ""
    """The class or group of its sightings; empty for backdoor alerts."""

    @property
    def state(self) -> str:
        """Return `open`, `acknowledged` or `closed`."""
        return self.review.state if self.review is not None else OPEN

    @property
    def newest(self) -> str:
        """Id of its last alert."""
        return self.alert_ids[-1]

    def add(self, found: AlertSummary, review: Review | None) -> None:
        """Append an alert, which follows the others."""
        self.first_ms = self.first_ms if self.alert_ids else found.raised_ms
        self.last_ms = found.raised_ms
        self.alert_ids.append(found.alert_id)
        if review is not None and (self.review is None or review.at_ms >= self.review.at_ms):
            self.review = review

    def continues_with(self, found: AlertSummary, review: Review | None, published_ms: Sequence[int]) -> bool:
        """Return whether `found`, of the same camera and class and later, belongs to this episode.

        Closed alerts stay among themselves: an alert that nobody has closed is never hidden in a closed episode. Nor
        does an episode outlast the model that raised it: `published_ms` is when another one went live.
        """
        if any(self.last_ms < at_ms <= found.raised_ms for at_ms in published_ms):
            return False
        closed = review is not None and review.state == CLOSED
        if closed or self.state == CLOSED:
            return closed and self.state == CLOSED and found.raised_ms - self.last_ms <= EPISODE_MS
        return self.state == OPEN or review is not None or found.raised_ms - self.last_ms <= EPISODE_MS


def episodes(alerts: Iterable[AlertSummary], reviews: Reviews, published_ms: Sequence[int] = ()) -> list[Episode]:
    """Return the episodes of `alerts`, those with the newest last alert first."""
    running: dict[tuple[str, str], Episode] = {}
    made: list[Episode] = []
    for found in sorted(alerts, key=lambda each: (each.raised_ms, each.alert_id)):
        review = reviews.get(found.alert_id)
        key = (found.camera, found.wanted)
        episode = running.get(key)
        if episode is None or not episode.continues_with(found, review, published_ms):
            episode = running[key] = Episode(found.camera, wanted=found.wanted)
            made.append(episode)
        episode.add(found, review)
    return sorted(made, key=lambda each: (each.last_ms, each.newest), reverse=True)


def sighting(camera: str, wanted: str, confidence: float) -> str:
    """Return a sighting in plain words."""
    return f"{wanted} seen at {camera.partition('/')[2] or camera}, {100 * confidence:.0f} %"


def sentence(class_name: str, frames: int, kind: str = STRIP, statistic: str = "") -> str:
    """Return an alert of evidence in plain words. `statistic` is the most frequent one of `combined` alerts."""
    why = _WHY.get(_STATISTICS.get(kind, statistic), "in pictures unlike clean ones")
    seen = f"The network answers {class_name or 'the same'} {why}: a trigger in the scene?"
    return f"{seen} {frames} frame{'' if frames == 1 else 's'}."
