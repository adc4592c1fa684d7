"""Sites that other consoles show: the last known state of each, and all of them together. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from consumers.console.access.sight import Sight
from consumers.console.data.cards import Card
from consumers.console.data.site_documents import SiteAlert

FATES: Final = ("recorded", "dead_lettered", "shed", "pending", "lost", "unread")
"""The possible fates of a published frame, by their names in the audit's counts."""


@dataclass(frozen=True, slots=True)
class Site:
    """One site as its console showed it last."""

    name: str
    """The site's name here."""
    url: str
    """URL of its console."""
    cards: tuple[Card, ...] = ()
    """Its cameras in the order of the fleet."""
    alerts: tuple[SiteAlert, ...] = ()
    """The newest alert of each episode, newest first."""
    audit: Mapping[str, int] | None = None
    """The counts of the live audit of its system; None without them."""
    no_audit: str = ""
    """The reason why there are no counts."""
    answered_ms: int = 0
    """Unix time of its console's last answer, in milliseconds; 0 before the first."""
    is_away: bool = True
    """Whether its console has not answered for a while."""
    problem: str = ""
    """The reason for which the last poll failed, in one line; empty if it did not."""
    is_refused: bool = False
    """Whether its console answers, and the answer is rejected."""

    @property
    def state(self) -> str:
        """Return `up`, `away` or `refused`."""
        return "refused" if self.is_refused else "away" if self.is_away else "up"

    @property
    def open_alerts(self) -> int:
        """Number of cameras with an open alert."""
        return sum(1 for card in self.cards if card.alert and not card.acknowledged and not card.muted_until_ms)

    def gone(self) -> Site:
        """Return the site as away, with its last known cards."""
        cards = tuple(replace(card, is_away=True, frames_per_second=0.0) for card in self.cards)
        return replace(self, is_away=True, cards=cards)

    def renders_like(self, other: Site) -> bool:
        """Return whether pages show both alike. The time of an answer is shown for a site that is away only."""
        return self == (other if self.is_away else replace(other, answered_ms=self.answered_ms))


def merge_cards(cards: Iterable[Card]) -> tuple[Card, ...]:
    """Return the cards of all pages, each camera once, in the order of the fleet.

    A camera that changes its place between two requests is on two pages, or on none until the next poll: one next to
    an added or removed camera, or any one of a console of an earlier release, whose pages have the worst state first.
    """
    return tuple(sorted({card.name: card for card in cards}.values(), key=lambda card: card.order))


def cards_of_sites(sites: Iterable[Site]) -> tuple[Card, ...]:
    """Return the cards of all sites in the order of the fleet."""
    return tuple(sorted((card for site in sites for card in site.cards), key=lambda card: card.order))


def without_duplicates(site: Site, own: Collection[str]) -> Site:
    """Return the site without its cameras and alerts if a camera of this console has that site."""
    if site.name not in own:
        return site
    problem = f"site: expected a name that no camera of this console has, got {site.name}. Rename it in the settings."
    return replace(site, cards=(), alerts=(), problem=problem, is_refused=True)


def visible(sites: Iterable[Site], sight: Sight) -> tuple[Site, ...]:
    """Return the sites that a reader may see."""
    return tuple(site for site in sites if sight.sees(f"{site.name}/"))


def summed(audits: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the sums of the counts of several systems: `frames_published`, and each fate."""
    names = ["frames_published", *(f"frames_{fate}" for fate in FATES)]
    return {name: sum(int(each.get(name, 0)) for each in audits) for name in names}


def audits_of(sites: Iterable[Site]) -> list[Mapping[str, int]]:
    """Return the known counts of the systems of these sites: those of a console with several sites once."""
    return list({site.url.rstrip("/"): site.audit for site in sites if site.audit is not None}.values())


def sum_lost(sites: Sequence[Site]) -> int | None:
    """Return the frames that the audits of these sites count as lost; None if one of them is unknown or away."""
    if any(site.audit is None or site.state != "up" for site in sites):
        return None
    return sum(each["frames_lost"] for each in audits_of(sites))
