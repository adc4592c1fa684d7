"""The refusal of a login."""

from __future__ import annotations


class RefusedLoginError(Exception):
    """A login that is refused, in one line that the visitor may read."""

    def __init__(self, why: str, status: int = 401) -> None:
        super().__init__(why)
        self.status = status
