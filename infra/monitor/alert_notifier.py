"""Open alerts from the recorder's database to Alertmanager's API, at least once: of backdoors, and sightings.

Each alert is posted with its id as a label, so Alertmanager merges repeated posts. An open alert is posted again every
`REPEAT_S`. A closed one is posted once more, with its end; so is a sighting, `HOLD_S` after it has ended. If the
monitor stops, Alertmanager ends its alerts after `HOLD_S`. While the database is away, no alert ends. A backdoor alert
of a database that was set aside is open until somebody closes it or removes that file.

Each mute becomes one of Alertmanager's silences, which ends by itself: for a camera its alerts and the rules about it,
for an alert the alerts of its episode.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import httpx2
import structlog
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from consumers.cameras.episodes import CLOSED, EPISODE_MS, AlertSummary, episodes, sentence, sighting
from consumers.cameras.open_alerts import HOLD_S, is_lasting, newest_alerts, open_episodes
from consumers.database.console_store import Reviews, recorded_reviews
from consumers.database.damage import last_set_aside_ms
from consumers.database.engine import database_id
from consumers.database.mutes import Mute, Mutes, read_mutes
from consumers.database.recorded import RecorderDatabase
from consumers.database.tables import alerts
from consumers.records.rows import statistic_name
from schemas.batched import batched
from schemas.clock import unix_ms
from schemas.errors import BrokerError, StateError
from schemas.pointillist_pb2 import Alert
from schemas.runtime.worker_threads import WorkerThreads
from schemas.transport.http import DIRECT

ALERT_NAME: Final = "PointillistBackdoor"
"""Value of the label `alertname`; routes and inhibitions refer to it."""
SIGHTING_NAME: Final = "PointillistSighting"
"""The same for a sighting."""
REPEAT_S: Final = 30.0
ANSWER_S: Final = 10.0
_AT_ONCE: Final = 100
_SILENCED_BY: Final = "pointillist"
"""Start of a silence's author. The id of this system's database follows, and the subject of the mute."""
_DESCRIPTION: Final = (
    "Look at the flagged frames in the quarantine. Cover or remove the trigger in the scene. Until then, distrust the "
    "camera's verdicts."
)
_SIGHTING_DESCRIPTION: Final = (
    "A sighting rule of the console requests this notification. It is no sign of a fault or of a backdoor."
)

_READ: Final = (
    alerts.c.camera.label("camera_id"),
    *alerts.c["alert_id", "kind", "raised_ms", "checked", "statistic", "wanted", "confidence"],
)
"""The columns of an alert that a notification shows, by the names of `Alert`."""

T = TypeVar("T")

log = structlog.get_logger()

Document = dict[str, Any]
"""An alert in the form of Alertmanager's API v2."""


@dataclass
class _PostedAlert:
    """An alert that Alertmanager has accepted."""

    document: Document
    at_s: float


class _RefusedError(BrokerError):
    """Alertmanager answers, and does not accept a request."""


class AlertNotifier:
    """Posts new alerts, repeats open ones, ends closed ones, and silences muted ones."""

    def __init__(
        self,
        alertmanager: str,
        database: str,
        *,
        system: str = "",
        console: str = "",
        reviews: str = "",
        published_ms: Callable[[], Sequence[int]] = tuple,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`alertmanager` and `console` are base URLs; `database` and `reviews` are SQLAlchemy URLs.

        `system` is an id that stays if the database moves, by default that of the database. Silences of both ids are
        this system's.

        Without `console`, alerts carry no links. An alert is open until its episode is closed in the console's
        database `reviews`. Without `reviews`, and until they have been read once, it is open for 15 minutes after it
        was raised. `published_ms` returns the times at which models were published or withdrawn. An episode ends at
        each of them.
        """
        self._api = f"{alertmanager.rstrip('/')}/api/v2"
        self._console = console.rstrip("/")
        self._database = database
        of_database = database_id(database)
        self._author = f"{_SILENCED_BY} {system or of_database}"
        self._earlier_author = f"{_SILENCED_BY} {of_database}"
        self._reviews_url = reviews
        self._reviews: Reviews | None = None
        self._published_ms = published_ms
        self._clock_s = clock_s
        self._recorded = RecorderDatabase(database)
        self._posted: dict[str, _PostedAlert] = {}
        self._silences: dict[str, Document] | None = None
        self._silenced_at_s = 0.0
        self._client = httpx2.Client(timeout=ANSWER_S, limits=httpx2.Limits(max_keepalive_connections=0), mounts=DIRECT)
        self._run_in_thread = WorkerThreads(1, "alerts")

    async def notify_in_thread(self) -> None:
        """Run `notify` in its thread.

        Raises BrokerError if Alertmanager does not accept them, and the driver's error if the database does not answer.
        """
        await self._run_in_thread(self.notify)

    def notify(self) -> None:
        """Bring the silences up to date, then post all alerts that are due. Blocks; for one thread only.

        A silence or a batch of alerts that Alertmanager rejects stops no other. The first error is raised at the end.
        While the database does not answer or is missing, the alerts that were open last are repeated.
        """
        now_s = self._clock_s()
        try:
            found = self._read(lambda each: (newest_alerts(each), read_mutes(each, unix_ms())))
            if found is not None:
                self._notify(*found, now_s)
        except SQLAlchemyError:
            self._repeat_open(now_s)
            raise
        if found is None:
            self._repeat_open(now_s)

    def _notify(self, newest: Sequence[AlertSummary], mutes: Mutes, now_s: float) -> None:
        of = list(dict.fromkeys([*(each.alert_id for each in newest), *self._posted]))
        if self._reviews_url and (found := recorded_reviews(self._reviews_url, of)) is not None:
            self._reviews = found
        refused: list[BrokerError] = []
        try:
            every = episodes(newest, self._reviews or {}, self._published_ms())
            together = {alert_id: each.alert_ids for each in every for alert_id in each.alert_ids}
            silences = {each.subject: self._silence_document(each, together) for each in mutes.values()}
            self._update_silences(silences, now_s)
        except BrokerError as error:
            refused.append(error)
        standing = self._open_ids(newest)
        standing |= self._open_before_damage([each for each in self._posted if each not in standing])
        new = self._read_documents([each for each in standing if each not in self._posted])
        self._post_open(new | self._due(standing, now_s), now_s, refused)
        if count := len(new.keys() & self._posted.keys()):
            log.info("alerts_notified", count=count)
        closed = {each: posted.document for each, posted in self._posted.items() if each not in standing}
        for some in self._post(closed, 0, refused):
            for each in some:
                del self._posted[each]
        if refused:
            raise refused[0]

    def _repeat_open(self, now_s: float) -> None:
        """Post the alerts again that were open last, without new ones and ends."""
        refused: list[BrokerError] = []
        self._post_open(self._due(self._posted, now_s), now_s, refused)
        if refused:
            raise refused[0]

    def _due(self, standing: Container[str], now_s: float) -> dict[str, Document]:
        """Return the posted alerts among the `standing` that are to be repeated."""
        return {
            each: posted.document
            for each, posted in self._posted.items()
            if each in standing and now_s - posted.at_s >= REPEAT_S
        }

    def _post_open(self, due: Mapping[str, Document], now_s: float, refused: list[BrokerError]) -> None:
        for some in self._post(due, HOLD_S, refused):
            self._posted |= {each: _PostedAlert(due[each], now_s) for each in some}

    def _update_silences(self, wanted: dict[str, Document], now_s: float) -> None:
        """Make Alertmanager's silences of this system the `wanted` ones, by the subject of the mute.

        A refused request stops no other one. Raises its error at the end, and BrokerError without an answer.
        """
        repeated = wanted and now_s - self._silenced_at_s >= REPEAT_S
        if wanted == self._silences and not repeated:
            return
        kept: set[str] = set()
        refused: list[BrokerError] = []
        for each in self._request("GET", "/silences").json():
            author, _, subject = str(each["createdBy"]).partition(": ")
            is_same = _is_same_silence(each, wanted.get(subject))
            # Earlier versions wrote no id, and an id changes with the fleet's secret: other silences are another
            # system's, unless one is the same as a mute here.
            is_former = author.partition(" ")[0] == _SILENCED_BY and is_same
            is_ours = author in (self._author, self._earlier_author) or is_former
            if each["status"]["state"] == "expired" or not is_ours:
                continue
            if author != self._author or subject in kept or not is_same:
                self._try_request(refused, "DELETE", f"/silence/{each['id']}")
            else:
                kept.add(subject)
        for subject in wanted.keys() - kept:
            begun = {"startsAt": datetime.now(UTC).isoformat()}
            self._try_request(refused, "POST", "/silences", wanted[subject] | begun)
        if refused:
            raise refused[0]
        self._silences, self._silenced_at_s = wanted, now_s

    def _silence_document(self, mute: Mute, together: Mapping[str, Sequence[str]]) -> Document:
        """Return a mute as a silence in the form of Alertmanager's API v2, without its start.

        `together` holds all alerts of each alert's episode. An alert that only a database set aside holds keeps its
        earlier silence.
        """
        name, value = "camera_id", mute.subject
        if not mute.is_of_camera:
            name, value = "alert_id", "|".join(together.get(mute.subject, [mute.subject]))
        matchers = [{"name": name, "value": value, "isRegex": not mute.is_of_camera, "isEqual": True}]
        earlier = (self._silences or {}).get(mute.subject)
        if not mute.is_of_camera and mute.subject not in together and earlier is not None:
            matchers = earlier["matchers"]
        return {
            "matchers": matchers,
            "endsAt": datetime.fromtimestamp(mute.until_ms / 1000, UTC).isoformat(),
            "createdBy": f"{self._author}: {mute.subject}",
            "comment": f"{mute.reason} (muted by {mute.who})",
        }

    def _open_ids(self, newest: Sequence[AlertSummary]) -> dict[str, None]:
        """Return the ids of the open alerts among the `newest`, the newest first."""
        now_ms = unix_ms()
        lasting = [each for each in newest if is_lasting(each, now_ms)]
        if self._reviews is not None:
            opened = {
                alert_id
                for each in open_episodes(newest, self._reviews, self._published_ms())
                for alert_id in each.alert_ids
            }
            return {each.alert_id: None for each in lasting if each.alert_id in opened}
        return {each.alert_id: None for each in lasting if each.raised_ms >= now_ms - EPISODE_MS}

    def _open_before_damage(self, alert_ids: Sequence[str]) -> dict[str, None]:
        """Return the ids of the backdoor alerts that only a database set aside holds, and that nobody has closed."""
        aside_ms = last_set_aside_ms(self._database)
        if not aside_ms or self._reviews is None:
            return {}
        found: dict[str, None] = {}
        for each in alert_ids:
            document, review = self._posted[each].document, self._reviews.get(each)
            is_earlier = datetime.fromisoformat(document["startsAt"]).timestamp() * 1000 <= aside_ms
            is_backdoor = document["labels"]["alertname"] == ALERT_NAME
            if is_earlier and is_backdoor and not (review is not None and review.state == CLOSED):
                found[each] = None
        stored = self._read_documents(list(found))
        return {each: None for each in found if each not in stored}

    def _read_documents(self, alert_ids: list[str]) -> dict[str, Document]:
        def read(connection: Connection) -> dict[str, Document]:
            found = {}
            for some in batched(alert_ids):
                # Not from the stored message: a damaged one would keep all alerts from being posted.
                for row in connection.execute(select(*_READ).where(alerts.c.alert_id.in_(some))):
                    found[row.alert_id] = document_of(Alert(**row._mapping), self._console)
            return found

        return (self._read(read) or {}) if alert_ids else {}

    def _read(self, read: Callable[[Connection], T]) -> T | None:
        try:
            engine = self._recorded.engine()
        except StateError:
            return None
        with engine.begin() as connection:
            return read(connection)

    def _post(
        self, documents: Mapping[str, Document], hold_s: float, refused: list[BrokerError]
    ) -> Iterator[Sequence[str]]:
        """Post alerts that end in `hold_s`. Yield the ids of each accepted batch, and add refusals to `refused`."""
        for some in batched(list(documents), _AT_ONCE):
            now = datetime.now(UTC)
            ends = {"endsAt": (now + timedelta(seconds=hold_s)).isoformat()}
            sent = [documents[each] | _bounded_start(documents[each], now) | ends for each in some]
            if self._try_request(refused, "POST", "/alerts", sent):
                yield some

    def _try_request(self, refused: list[BrokerError], method: str, path: str, document: Any = None) -> bool:
        """Return whether a request was accepted, and add its refusal to `refused`."""
        try:
            self._request(method, path, document)
        except _RefusedError as error:
            refused.append(error)
            return False
        return True

    def _request(self, method: str, path: str, document: Any = None) -> httpx2.Response:
        try:
            answer = self._client.request(method, self._api + path, json=document)
        except httpx2.HTTPError as error:
            raise BrokerError(
                f"Alertmanager: expected an answer within {ANSWER_S:g} s, got {type(error).__name__}. Open alerts are "
                "posted again."
            ) from None
        if not answer.is_success:
            raise _RefusedError(
                f"Alertmanager: expected status 200, got {answer.status_code}. Open alerts are posted again."
            )
        return answer

    def close(self) -> None:
        """Close the client and the thread."""
        self._run_in_thread.close()
        self._client.close()
        self._recorded.close()


def _bounded_start(document: Document, now: datetime) -> Document:
    """Return an alert's start, at the latest `now`: Alertmanager rejects an alert that ends before its start.

    The clock of the recorder may be ahead, and the clock of this machine may have been set back.
    """
    return {"startsAt": min(datetime.fromisoformat(document["startsAt"]), now).isoformat()}


def _is_same_silence(standing: Document, wanted: Document | None) -> bool:
    if wanted is None or any(standing[name] != wanted[name] for name in ("matchers", "comment")):
        return False
    ends = [datetime.fromisoformat(each["endsAt"]) for each in (standing, wanted)]
    return abs(ends[0] - ends[1]) < timedelta(seconds=1)


def document_of(alert: Alert, console: str) -> Document:
    """Return an alert in the form of Alertmanager's API v2, without its end.

    With the base URL `console`, it links to the alert's page, its thumbnail, its clip and its runbook.
    """
    links: Document = {}
    source: Document = {}
    name = SIGHTING_NAME if alert.wanted else ALERT_NAME
    if console:
        page = f"{console}/alerts/{alert.alert_id}"
        source = {"generatorURL": page}
        links = {
            "console_url": page,
            "thumbnail_url": f"{page}.png",
            "clip_url": f"{console}/camera/{alert.camera_id}/clip.mp4?at_ms={alert.raised_ms}",
            "runbook_url": f"{console}/runbooks#{name.lower()}",
        }
    return {
        "labels": {
            "alertname": name,
            "severity": "info" if alert.wanted else "critical",
            "camera_id": alert.camera_id,
            "site": alert.camera_id.partition("/")[0],
            "kind": alert.kind,
            "alert_id": alert.alert_id,
            **({"wanted": alert.wanted} if alert.wanted else {}),
        },
        "annotations": {
            "summary": sighting(alert.camera_id, alert.wanted, alert.confidence)
            if alert.wanted
            else f"{alert.camera_id}: {sentence('', alert.checked, alert.kind, statistic_name(alert.statistic))}",
            "description": _SIGHTING_DESCRIPTION if alert.wanted else _DESCRIPTION,
            **links,
        },
        "startsAt": datetime.fromtimestamp(alert.raised_ms / 1000, UTC).isoformat(),
        **source,
    }
