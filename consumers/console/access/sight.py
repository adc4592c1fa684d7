"""The part of the fleet that a reader may see: sites, and what belongs to them by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, false, or_, true


@dataclass(frozen=True, slots=True)
class Sight:
    """Sites; None is all of them, with what belongs to no site."""

    sites: frozenset[str] | None = None

    def sees(self, subject: str) -> bool:
        """Return whether a camera, or a name that begins with `site/`, is of these sites."""
        return self.sites is None or ("/" in subject and site_of(subject) in self.sites)

    def at(self, site: str) -> Sight:
        """Return the part of these sites that is one site."""
        return Sight(frozenset({site} if self.sees(f"{site}/") else ()))

    def where(self, column: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition of a query on a column with such names."""
        if self.sites is None:
            return true()
        return or_(false(), *(column.startswith(f"{site}/", autoescape=True) for site in sorted(self.sites)))


ALL: Final = Sight()


def site_of(subject: str) -> str:
    """Return the site of a camera, or of a name that begins with one; empty for other texts."""
    site, slash, _ = subject.partition("/")
    return site if slash else ""
