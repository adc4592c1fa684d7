"""The limits on conversations with the identity provider: strangers can begin them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from consumers.console.access.connections import network_of
from consumers.console.access.guesses import Delays
from consumers.console.access.refusal import RefusedLoginError

AT_ONCE: Final = 8
AT_ONCE_OF_NETWORK: Final = 4
"""Conversations at once of one address, or of the /64 of an IPv6 address."""


class ProviderPlaces:
    """The open conversations, and the delays of networks whose conversations fail."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._open: Counter[str] = Counter()
        self._failures = Delays(20, 30.0)

    @contextmanager
    def held(self, address: str) -> Iterator[None]:
        """Hold a place for a visitor at `address`. Raises RefusedLoginError without a free one, or during a delay."""
        network, now_s = network_of(address), self._clock_s()
        wait_s = self._failures.wait_s(network, now_s)
        if wait_s > 0:
            raise RefusedLoginError(f"login: too many failed ones. Try again in {wait_s:.0f} s.", 429)
        if self._open.total() >= AT_ONCE or self._open[network] >= AT_ONCE_OF_NETWORK:
            raise RefusedLoginError(f"login: expected at most {AT_ONCE} at once. Try again in some seconds.", 503)
        self._open[network] += 1
        self._failures.add(network, now_s)
        try:
            yield
            self._failures.refund(network)
        finally:
            self._open[network] -= 1
            if not self._open[network]:
                del self._open[network]
