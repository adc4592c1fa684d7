"""Alerts with their review state, and their episodes as the alerts page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, RowMapping, and_, select, true

from consumers.cameras.episodes import AlertSummary, Episode, episodes, sentence, sighting
from consumers.cameras.open_alerts import KINDS, muted_rows, newest_rows
from consumers.console.access.sight import ALL, Sight
from consumers.console.data.sentences import unusual
from consumers.database.console_store import Reviews
from consumers.database.mutes import Mute, mute_of, read_mutes
from consumers.database.tables import alerts, frames
from consumers.records.rows import Window, statistic_name, windows_of
from schemas.clock import unix_ms
from schemas.evidence.alarms import COMBINED
from schemas.pointillist_pb2 import Alert

NEWEST: Final = 2_000
"""Alerts of a kind that are grouped into episodes, the newest ones."""


@dataclass(frozen=True)
class AlertRow:
    """An alert with its review state."""

    alert_id: str
    """Deterministic id: the same evidence always gives the same id."""
    camera: str
    """Name of the camera, `site/camera`."""
    kind: str
    """The kind of evidence, or `sighting`."""
    raised_ms: int
    """When it was raised, Unix time in milliseconds."""
    checked: int
    """Frames that were checked for it."""
    flagged: int
    """Checked frames whose entropy or p-value is below the threshold."""
    mean_entropy_bits: float
    """Mean entropy over the checked frames, in bits."""
    threshold_bits: float
    """Entropy in bits below which a frame is suspect."""
    baseline_bits: float
    """Median entropy of the camera before the alert, in bits; 0 without a history."""
    evidence_octaves: float
    """Sum of the distances of the frames below their baseline, in octaves."""
    mean_p_value: float
    """Kind `combined`: geometric mean of the checked frames' p-values, 0 to 1."""
    p_value_threshold: float
    """P-value below which a frame is suspect."""
    baseline_p_value: float
    """Median p-value of the camera before the alert; 0 without a history."""
    statistic: str
    """Kind `combined`: the statistic that finds most of the frames most unusual: `entropy`, `disagreement`,
    `typicality`, `layer_disagreement` or `scaled_norms`. Empty for other kinds."""
    window: str
    """Window on which the label depends: left, top, right and bottom in pixels, and the dependence. May be empty."""
    first: int
    """Sequence number of the first frame."""
    last: int
    """Sequence number of the last frame."""
    wanted: str
    """Kind `sighting`: the class or group that the camera sees."""
    confidence: float
    """Kind `sighting`: mean confidence of the agreeing frames, 0 to 1."""
    ended_ms: int
    """Kind `sighting`: time of the last agreeing frame, once it has ended; 0 until then."""
    state: str = "open"
    """The state of its episode: `open`, `acknowledged` or `closed`."""
    who: str = ""
    """The user who set the state."""
    at_ms: int | None = None
    """Time of that decision, Unix time in milliseconds."""
    episode: str = ""
    """Id of the first alert of its episode: successive alerts of one camera and cause form an episode."""


_OWN: Final = ("state", "who", "at_ms", "episode")
_COLUMNS: Final = tuple(name for name in AlertRow.__dataclass_fields__ if name not in _OWN)


@dataclass(frozen=True)
class EpisodeSummary:
    """One episode as the page shows it."""

    episode: Episode
    alert: AlertRow
    """Its newest alert, or the requested one."""
    checked: int
    """Checked frames of all its alerts."""
    class_name: str
    """The predicted class in that alert; empty if it is no longer in the database."""
    model: str
    """The model that predicted this class."""
    mute: Mute | None = None
    """The mute of this episode or of its camera."""

    @property
    def window(self) -> Window | None:
        """Return the window of the frame on which the label depends, if a frame was examined."""
        return windows_of(self.alert.window)[0] if self.alert.window else None

    @property
    def sentence(self) -> str:
        """Return the episode in plain words."""
        if self.alert.wanted:
            return f"{sighting(self.alert.camera, self.alert.wanted, self.alert.confidence)}."
        alert = self.alert
        words = sentence(self.class_name, self.checked, alert.kind, alert.statistic)
        if alert.kind != COMBINED:
            return words
        return f"{words} The frames look {unusual(alert.mean_p_value, alert.p_value_threshold, alert.statistic)}."


def read_episodes(
    connection: Connection, reviews: Reviews, published_ms: Sequence[int], camera: str = "", sight: Sight = ALL
) -> list[tuple[Episode, list[AlertRow]]]:
    """Return the newest alerts of one camera or all of these sites, grouped into episodes, newest first."""
    columns = [alerts.c[name] for name in _COLUMNS]
    is_included = and_(sight.where(alerts.c.camera), alerts.c.camera == camera if camera else true())
    newest = [row for kind in KINDS for row in newest_rows(connection, columns, kind, NEWEST, is_included)]
    newest += muted_rows(connection, columns, is_included)
    rows = {row.alert_id: row._mapping for row in newest}
    known = [AlertSummary(*(row[name] for name in AlertSummary._fields)) for row in rows.values()]
    return [(each, _alert_rows(each, rows)) for each in episodes(known, reviews, published_ms)]


def _alert_rows(episode: Episode, rows: Mapping[str, RowMapping]) -> list[AlertRow]:
    review = episode.review
    who, at_ms = (review.who, review.at_ms) if review is not None else ("", None)
    first = episode.alert_ids[0]
    mine = [rows[alert_id] for alert_id in reversed(episode.alert_ids)]
    named = [{**row, "statistic": statistic_name(row["statistic"])} for row in mine]
    return [AlertRow(**row, state=episode.state, who=who, at_ms=at_ms, episode=first) for row in named]


def summarise_episodes(connection: Connection, found: Sequence[tuple[Episode, list[AlertRow]]]) -> list[EpisodeSummary]:
    """Return the episodes, each with the class and the model of the first alert in its list; the muted ones last."""
    shown = []
    mutes = read_mutes(connection, unix_ms())
    for episode, raised in found:
        first, checked = raised[0], sum(each.checked for each in raised)
        message = connection.scalar(select(alerts.c.message).where(alerts.c.alert_id == first.alert_id))
        mute = mute_of(mutes, episode.camera, episode.alert_ids)
        predicted = _predicted_class(connection, first, message or b"")
        shown.append(EpisodeSummary(episode, first, checked, *predicted, mute))
    return sorted(shown, key=lambda each: each.mute is not None)


def _predicted_class(connection: Connection, raised: AlertRow, message: bytes) -> tuple[str, str]:
    """Return the most frequent class of an alert's frames and the model; empty strings if no frame is left."""
    try:
        alert = Alert.FromString(message)
    except DecodeError:
        return "", ""
    mine = (frames.c.camera == raised.camera, frames.c.boot == alert.boot_id, frames.c.class_id == alert.class_id)
    span = frames.c.seq.between(raised.first, raised.last)
    query = select(frames.c.class_name, frames.c.model_id).where(*mine, span).order_by(frames.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return (row.class_name, row.model_id) if row is not None else ("", "")
