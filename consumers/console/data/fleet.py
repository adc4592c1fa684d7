"""The latest state of all cameras in the console: bounded, with numbered changes, so that only changes are pushed."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from types import MappingProxyType
from typing import Final

from consumers.cameras.camera import Camera
from consumers.cameras.order import natural
from consumers.cameras.saved import SavedState
from consumers.cameras.state import State
from consumers.console.access.sight import ALL, Sight
from consumers.console.data.cards import AWAY, Card, CardData
from consumers.console.data.pictures import AS_SENT, REBUILT, WHOLE, CameraPicture, Pictures, PictureVersions
from consumers.console.data.sentences import Traffic, fleet_sentence
from consumers.console.data.sites import Site, cards_of_sites, sum_lost, visible
from consumers.database.mutes import Mute
from consumers.records.batch import FrameKey
from consumers.records.rows import CameraRow, FrameRow
from consumers.settings import RecordsSettings
from schemas.limits import MAX_CAMERAS

_CHECK_EVERY_MS: Final = 1_000
"""Interval at which cameras are checked without a message from them: silence sends none."""
_CHECKED_AT_ONCE: Final = 1_000
"""Cameras that are then checked, in turn."""
_VIEWS_KEPT: Final = 64
GROUPS: Final = 12
"""Groups of classes that a page offers as filters."""


@dataclass(frozen=True, slots=True)
class Query:
    """Selection and order of the cameras on a page."""

    site: str = ""
    state: str = ""
    text: str = ""
    group: str = ""
    """A group of classes that the last frame certainly shows."""
    page: int = 1
    sight: Sight = ALL
    """Sites that the reader may see."""
    cards: int = 0
    """Cameras on a page; 0 is the console's own number."""
    by_name: bool = False
    """Whether the cameras are in the order of their names, which no change of a state moves; else the worst first."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of the whole system from the recorder's database."""

    dead_letters: Mapping[str, int] = field(default_factory=dict)
    """Dead letters of the last day by the camera that they name, the newest up to a bound."""
    lost: int | None = None
    """Lost frames by the last live audit; None before the first."""


@dataclass(frozen=True, slots=True)
class View:
    """A page of cameras."""

    cards: tuple[Card, ...]
    known: int
    """Number of cameras that site and text select, in whichever state."""
    sentence: str
    """The fleet in one sentence."""
    counts: Mapping[str, int]
    """Number of cameras in each state, among those that site, text and group select."""
    groups: Mapping[str, int]
    """Number of cameras in each group of classes, among those that site, text and state select; the most frequent
    groups first.
    """
    sites: tuple[str, ...]
    away: tuple[Site, ...]
    """Sites of other consoles that could not be read."""
    found: int
    page: int
    pages: int


class Fleet:
    """The cameras by name, with their last pictures and their cards. For one event loop."""

    def __init__(self, settings: RecordsSettings, page_cards: int = 60) -> None:
        self._silent_after_s = settings.silent_after_s
        self._bounds = settings.bounds
        self._page_cards = page_cards
        self._watched: OrderedDict[str, CardData] = OrderedDict()
        """Cameras by name, the most recently received last."""
        self._states: OrderedDict[str, SavedState] = OrderedDict()
        """States saved by the recorder, also for cameras without a message yet."""
        self._cards: dict[str, Card] = {}
        self._order: list[Card] = []
        self._touched: set[str] = set()
        self._checked_at_ms = 0
        self._unchecked: list[str] = []
        """Cameras whose turn to be checked is still to come."""
        self._forgotten: dict[str, int] = {}
        """Unix time at which each camera was removed. Frames recorded before it do not bring it back."""
        most = self._bounds.preview_bytes
        self._pictures = {
            kind: Pictures(kind, share) for kind, share in ((REBUILT, most), (AS_SENT, most // 2), (WHOLE, most // 2))
        }
        self._views: dict[Query, View] = {}
        self._by_sight: dict[Sight, Sequence[Card]] = {}
        """Cards of all consoles by reader, since the last change of a card."""
        self._sites: tuple[Site, ...] = ()
        self._elsewhere: Sequence[Card] = ()
        """Cards of the sites of other consoles, in the order of the fleet."""
        self._by_name: dict[str, Card] = {}
        """The same by name."""
        self.totals = Totals()
        self.version = 0
        """Increased with every change that a page could show."""
        self.changed = asyncio.Event()
        """Set and replaced at each change."""

    # Updates

    def add_frames(
        self, rows: Sequence[FrameRow], rebuilt: Mapping[FrameKey, bytes], sent: Mapping[FrameKey, bytes], now_ms: int
    ) -> None:
        """Add verdicts, and the pictures that came with some of them. `now_ms` is on a monotonic clock."""
        for row in rows:
            if row.recorded_ms <= self._forgotten.get(row.camera, -1):
                continue
            self._watch(row.camera).record_frame(row, now_ms)
            self._touched.add(row.camera)
            key = row[:3]
            if (jpeg := rebuilt.get(key)) and self._pictures[REBUILT].keep(row, jpeg):
                self._watched[row.camera].pictures += 1
            if jpeg := sent.get(key):
                self._pictures[WHOLE if row.whole else AS_SENT].keep(row, jpeg)
        self._make_room()

    def record_status(self, status: CameraRow, age_ms: int, now_ms: int) -> None:
        """Apply a camera's own status message, sent `age_ms` ago."""
        if status.seen_ms <= self._forgotten.get(status.camera, -1):
            return
        camera = self._watch(status.camera).camera
        if camera.status is None or camera.status.state_ms != status.state_ms:
            camera.status_seen_ms = now_ms - age_ms
        camera.record_status(status)
        self._touched.add(status.camera)
        self._make_room()

    def merge_saved(self, saved: Camera, age_ms: int, now_ms: int) -> None:
        """Merge a camera's saved row. Counts and evidence come from the recorder; the newer frame wins.

        The console reads frames before the recorder saves them, so that a saved frame of another boot may be older.
        It is newer if it was recorded when the camera was already silent here, as while Kafka is away.
        """
        if saved.last is None or saved.last.recorded_ms <= self._forgotten.get(saved.name, -1):
            return
        watched = self._watch(saved.name)
        mine, last = watched.camera, saved.last
        mine.frames, mine.level, mine.is_new, mine.boot = saved.frames, saved.level, saved.is_new, saved.boot
        mine.entropy_bits, mine.probes = saved.entropy_bits, saved.probes
        if mine.last is None:
            is_newer = True
        elif last.boot == mine.last.boot:
            is_newer = last.seq > mine.last.seq
        else:
            is_newer = last.recorded_ms - mine.last.recorded_ms > 1000 * self.patience_s(saved.name)
        if is_newer:
            mine.last = last
            mine.heard_ms = max(mine.heard_ms, now_ms - age_ms)
        self._touched.add(saved.name)

    def apply_states(self, saved: Iterable[SavedState]) -> None:
        """Apply the states that the recorder has saved since the last call."""
        for each in saved:
            if self._states.get(each.camera) != each:
                self._states[each.camera] = each
                self._touched.add(each.camera)
            self._states.move_to_end(each.camera)
        while len(self._states) > MAX_CAMERAS + self._bounds.strangers:
            self._states.popitem(last=False)

    def set_alerts(
        self,
        opened: Mapping[str, Sequence[str]],
        acknowledged: Collection[str] = (),
        muted: Mapping[str, Mute] = MappingProxyType({}),
        sightings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Set the newest alert of each open episode, by camera, newest last.

        `acknowledged` are the cameras whose episodes are all acknowledged, `muted` those that are muted. `sightings`
        are the newest open ones.
        """
        for name, watched in self._watched.items():
            now = (list(opened.get(name, ())), name in acknowledged, muted.get(name), sightings.get(name, ""))
            if now != (watched.alerts, watched.acknowledged, watched.mute, watched.sighting):
                watched.alerts, watched.acknowledged, watched.mute, watched.sighting = now
                self._touched.add(name)

    def show_sites(self, sites: Iterable[Site]) -> None:
        """Set the sites that other consoles show."""
        before, self._sites = self._sites, tuple(sites)
        if len(before) == len(self._sites) and all(map(Site.renders_like, self._sites, before)):
            return
        self._elsewhere = cards_of_sites(self._sites)
        self._by_name = {card.name: card for card in self._elsewhere}
        self._views.clear()
        self._by_sight.clear()
        self.version += 1
        self.notify_pages()

    def forget(self, name: str, at_ms: int) -> None:
        """Remove a camera until a message from it arrives after `at_ms` (Unix time)."""
        self._forgotten[name] = at_ms
        self._drop(name)

    def forget_all(self, gone: Mapping[str, int]) -> None:
        """Remove the cameras in `gone`, each with its Unix time, that are not removed yet.

        An earlier time replaces the known one: the clock was set back.
        """
        for name, at_ms in gone.items():
            if self._forgotten.get(name, -1) < at_ms:
                self.forget(name, at_ms)
            self._forgotten[name] = at_ms

    # Views

    def tick(self, now_ms: int) -> bool:
        """Bring the cards up to date. Return whether one has changed."""
        names = self._touched
        if now_ms - self._checked_at_ms >= _CHECK_EVERY_MS:
            self._checked_at_ms = now_ms
            self._unchecked = self._unchecked or list(self._watched)
            names = names.union(self._unchecked[:_CHECKED_AT_ONCE])
            del self._unchecked[:_CHECKED_AT_ONCE]
        changed, moved = False, len(self._order) != len(self._watched)
        for name in names:
            watched = self._watched.get(name)
            if watched is None:
                continue
            card = watched.card(self._states.get(name), now_ms, self._silent_after_s)
            before = self._cards.get(name)
            if card != before:
                changed = True
                moved = moved or before is None or before.order != card.order
                self._cards[name] = card
        self._touched = set()
        if not (changed or moved):
            return False
        if moved:
            self._order = sorted(self._cards.values(), key=lambda card: card.order)
        else:
            self._order = [self._cards[card.name] for card in self._order]
        self._views.clear()
        self._by_sight.clear()
        self.version += 1
        self.notify_pages()
        return True

    def notify_pages(self) -> None:
        """Wake every open page to check for changes."""
        self.changed.set()
        self.changed = asyncio.Event()

    def view(self, query: Query) -> View:
        """Return the page of cameras that `query` selects, built once for all its readers."""
        found = self._views.get(query)
        if found is None:
            if len(self._views) >= _VIEWS_KEPT:
                self._views.clear()
            found = self._views[query] = self._view(query)
        return found

    def _view(self, query: Query) -> View:
        text = query.text.casefold()
        chosen = [
            card
            for card in self.cards(query.sight)
            if (not query.site or card.site == query.site)
            and (not text or any(text in each.casefold() for each in (card.name, card.verdict, card.group)))
        ]
        known = len(chosen)
        here = [card for card in chosen if not card.is_away]
        loud = [card for card in here if not (card.mute_of_camera and card.state.is_fault)]
        states, muted = Counter(card.state for card in loud), len(here) - len(loud)
        said = fleet_sentence(states, self.traffic(chosen, query.sight), muted, len(chosen) - len(here))
        of_group = [card for card in chosen if not query.group or card.kind == query.group]
        of_state = [card for card in chosen if not query.state or card.status == query.state]
        counts = Counter(card.status for card in of_group)
        kinds = Counter(card.kind for card in of_state if card.kind)
        groups = dict(kinds.most_common(GROUPS))
        if query.group:
            groups[query.group] = kinds[query.group]
        chosen = [card for card in of_group if not query.state or card.status == query.state]
        if query.by_name:
            chosen.sort(key=lambda card: natural(card.name))
        size = query.cards or self._page_cards
        pages = max(1, -(-len(chosen) // size))
        page = min(max(1, query.page), pages)
        begin = (page - 1) * size
        cards = tuple(chosen[begin : begin + size])
        others = self.sites(query.sight)
        sites = tuple(sorted({*(card.site for card in self.cards(query.sight)), *(site.name for site in others)}))
        ordered = {status: counts[status] for status in (*State, AWAY) if counts[status] or status == query.state}
        away = tuple(site for site in others if site.state != "up" and query.site in ("", site.name))
        return View(cards, known, said, ordered, groups, sites, away, len(chosen), page, pages)

    def traffic(self, chosen: Sequence[Card] | None = None, sight: Sight = ALL) -> Traffic:
        """Return the traffic of these cameras, or of all of this console. The latency is the median of up to 200.

        The audit counts losses of the whole fleet alone, so only a reader who sees all of it gets them.
        """
        lost = self.totals.lost if chosen is None else self._lost()
        chosen = self._order if chosen is None else chosen
        sending = [card for card in chosen if card.frames_per_second]
        # A removed camera keeps its card in the order until the next tick.
        cameras = [self.camera(card.name) for card in sending[:200] if not card.console]
        last = [camera.last for camera in cameras if camera is not None]
        late_ms = sorted(max(0, row.recorded_ms - row.captured_ms) for row in last if row is not None)
        rate = sum(card.frames_per_second for card in sending)
        latency_s = late_ms[len(late_ms) // 2] / 1000 if late_ms else None
        return Traffic(rate, latency_s, lost if sight == ALL else None)

    def _lost(self) -> int | None:
        """Return the frames that the audits of all systems count as lost; None if one of them is unknown."""
        elsewhere = sum_lost(self._sites)
        return None if self.totals.lost is None or elsewhere is None else self.totals.lost + elsewhere

    def set_totals(self, totals: Totals) -> None:
        """Set the counts of the whole system."""
        if totals != self.totals:
            self.totals = totals
            self._views.clear()
            self.version += 1
            self.notify_pages()

    def cards(self, sight: Sight = ALL) -> Sequence[Card]:
        """Return the cards of these sites, of all consoles, the worst state first, selected once for all readers."""
        if sight == ALL and not self._elsewhere:
            return self._order
        found = self._by_sight.get(sight)
        if found is None:
            if len(self._by_sight) >= _VIEWS_KEPT:
                self._by_sight.clear()
            everywhere = merge(self._order, self._elsewhere, key=lambda card: card.order)
            found = self._by_sight[sight] = tuple(card for card in everywhere if sight.sees(card.name))
        return found

    def own_cards(self, sight: Sight = ALL) -> Sequence[Card]:
        """Return the cards of this console's own cameras."""
        return [card for card in self.cards(sight) if not card.console]

    def own_sites(self) -> frozenset[str]:
        """Return the sites of this console's own cameras."""
        return frozenset(card.site for card in self._order)

    def sites(self, sight: Sight = ALL) -> tuple[Site, ...]:
        """Return the sites that other consoles show, among these sites."""
        return visible(self._sites, sight)

    def card(self, name: str) -> Card | None:
        """Return the card of one camera of this console; None if it is unknown."""
        return self._cards.get(name)

    def elsewhere(self, name: str) -> Card | None:
        """Return the card of one camera of another console; None if it is unknown."""
        return self._by_name.get(name)

    def camera(self, name: str) -> Camera | None:
        """Return the full record of one camera; None if it is unknown."""
        watched = self._watched.get(name)
        return watched.camera if watched is not None else None

    def patience_s(self, name: str) -> float:
        """Return the seconds without a frame after which a camera is silent."""
        return self._any(name).patience_s(self._states.get(name), self._silent_after_s)

    def sends(self, name: str, now_ms: int) -> bool:
        """Return whether a camera sends frames; `now_ms` is on the clock of `tick`."""
        return self._any(name).sends(self._states.get(name), now_ms, self._silent_after_s)

    def _any(self, name: str) -> CardData:
        """Return the record of a camera, an empty one for an unknown camera."""
        return self._watched.get(name) or CardData(Camera(name))

    def attacked(self, name: str, since_ms: int) -> list[bool]:
        """Return for each recent attacked frame of a camera whether the verdict was correct."""
        watched = self._watched.get(name)
        return [correct for at_ms, correct in watched.attacked if at_ms >= since_ms] if watched is not None else []

    def dead_letters(self, sight: Sight) -> int:
        """Return the number of dead letters of the last day that name cameras of these sites, up to a bound."""
        return sum(number for camera, number in self.totals.dead_letters.items() if sight.sees(camera))

    def alerts(self, sight: Sight = ALL) -> tuple[int, int]:
        """Return the number of cameras with an open alert, and of others with an acknowledged one, muted ones apart."""
        raised = [card for card in self.cards(sight) if card.alert and not card.muted_until_ms]
        acknowledged = sum(1 for card in raised if card.acknowledged)
        return len(raised) - acknowledged, acknowledged

    def sightings(self, sight: Sight) -> int:
        """Return the number of cameras with an open sighting."""
        return sum(1 for card in self.cards(sight) if card.sighting)

    def muted(self, sight: Sight) -> int:
        """Return the number of muted cameras."""
        return sum(1 for card in self.cards(sight) if card.muted_until_ms)

    def picture(self, name: str, kind: str = REBUILT) -> CameraPicture | None:
        """Return the camera's last picture of a `kind`; None if it is not in memory."""
        found = self._pictures.get(kind)
        return found.get(name) if found is not None else None

    def picture_versions(self, name: str) -> PictureVersions:
        """Return the camera's last picture in its three versions."""
        return PictureVersions(self.picture(name, AS_SENT), self.picture(name), self.picture(name, WHOLE))

    # Limits

    def _watch(self, name: str) -> CardData:
        watched = self._watched.get(name)
        if watched is None:
            watched = self._watched[name] = CardData(Camera(name))
        else:
            self._watched.move_to_end(name)
        return watched

    def _make_room(self) -> None:
        while len(self._watched) > MAX_CAMERAS + self._bounds.strangers:
            self._drop(next(iter(self._watched)))

    def _drop(self, name: str) -> None:
        self._watched.pop(name, None)
        self._cards.pop(name, None)
        for pictures in self._pictures.values():
            pictures.drop(name)
        self._touched.add(name)
