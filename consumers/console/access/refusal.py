"""The refusals of a login and of an action."""

from __future__ import annotations


class RefusedLoginError(Exception):
    """A login that is refused, in one line that the visitor may read."""

    def __init__(self, why: str, status: int = 401) -> None:
        super().__init__(why)
        self.status = status


class RefusedActionError(Exception):
    """An action that is refused, in one line that the person may read."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.status = status
