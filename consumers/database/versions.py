"""The error for tables of another release."""

from __future__ import annotations

from schemas.errors import StateError


def of_another_version(expected: int, found: int, what: str = "a database", option: str = "--database") -> StateError:
    """Return the error for tables of version `found`, with a remedy.

    `option` is the option that sets the location of `what`.
    """
    release = "an earlier" if found < expected else "a later"
    return StateError(
        f"expected {what} of version {expected}, got version {found}, which {release} release has made: go on with "
        f"that release, or start again with another {option}, or another --state; the old one stays as it is"
    )
