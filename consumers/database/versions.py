"""What is said of tables that another release made."""

from __future__ import annotations

from schemas.errors import StateError


def of_another_version(expected: int, found: int, what: str = "a database", option: str = "--database") -> StateError:
    """The error of tables of version `found`, with what a person can do; `option` names where `what` lies."""
    release = "an earlier" if found < expected else "a later"
    return StateError(
        f"expected {what} of version {expected}, got version {found}, which {release} release has made: go on with "
        f"that release, or begin anew with another {option}, or another --state; the old one stays as it is"
    )
