"""The messages of a camera besides its frames: ledgers until they are confirmed, meta and status."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from producers.publisher.settings import LinkSettings
from producers.spool.ledgers import Ledgers
from schemas.keys.keys import CameraKey
from schemas.messages.frame import sign_message
from schemas.topics import Channel, mqtt_topic
from schemas.transport.backoff import Backoff

RESERVED: Final = 8
"""Messages of the broker's receive maximum that are reserved for reports."""


@dataclass(slots=True)
class _LedgerTurn:
    """The last transmission of a boot's ledger, and the time of the next if it is not confirmed."""

    revision: int
    backoff: Backoff
    retry_at: float = 0.0


class Reports:
    """Reports on their way to the broker. All methods run on the loop's thread."""

    def __init__(
        self,
        key: CameraKey,
        ledgers: Ledgers,
        settings: LinkSettings,
        publish: Callable[[str, bytes, bool], int | None],
        may_send: Callable[[], bool],
    ) -> None:
        """`publish` returns a packet identifier, or None without a connection; `may_send` returns whether the broker
        accepts another message."""
        self._key = key
        self._ledgers = ledgers
        self._settings = settings
        self._publish = publish
        self._may_send = may_send
        self._topic = mqtt_topic(key.camera_id, Channel.EVENT)
        self._unacknowledged: set[int] = set()
        self._announcements: dict[str, tuple[bytes, bool]] = {}
        self._turns: dict[int, _LedgerTurn] = {}
        self._ledgers_wait = False

    def __len__(self) -> int:
        """Return the number of reports that the broker has not acknowledged."""
        return len(self._unacknowledged)

    def begin(self, session_present: bool) -> None:
        """Handle a new connection: send everything again."""
        self._announcements.clear()
        if not session_present:
            self._unacknowledged.clear()
        for turn in self._turns.values():
            turn.retry_at = 0.0

    def acknowledged(self, mid: int) -> None:
        """Handle the PUBACK of the message `mid`, with success or a refusal."""
        self._unacknowledged.discard(mid)

    def confirmed(self, boot_id: int, revision: int) -> None:
        """Handle the server's confirmation of this revision of a boot's ledger."""
        if self._ledgers.confirm(boot_id, revision):
            self._turns.pop(boot_id, None)

    def announce(self, topic: str, payload: bytes, retain: bool) -> None:
        """Queue this announcement; it replaces the earlier one of its topic."""
        self._announcements.pop(topic, None)
        self._announcements[topic] = (payload, retain)

    def resume(self) -> None:
        """Send the reports that waited for acknowledgements."""
        self.send_announcements()
        if self._ledgers_wait:
            self.send_ledgers(time.monotonic())

    def send_announcements(self) -> None:
        """Send the queued announcements as far as the broker accepts them."""
        while self._announcements and self._may_send():
            topic, (payload, retain) = next(iter(self._announcements.items()))
            if not self._send(topic, payload, retain):
                return
            self._announcements.pop(topic, None)

    def send_ledgers(self, now: float) -> None:
        """Send each revision at once and again with exponential backoff until it is confirmed.

        There may be many old boots. Only half of `RESERVED` reports are in flight; the others follow acknowledgements.
        """
        self._ledgers_wait = False
        for ledger in list(self._ledgers.unsettled()):
            if len(self._unacknowledged) >= RESERVED // 2 or not self._may_send():
                self._ledgers_wait = True
                return
            turn = self._turns.get(ledger.boot_id)
            if turn is None or turn.revision < ledger.revision:
                turn = _LedgerTurn(ledger.revision, Backoff(self._settings.retry_s, self._settings.retry_max_s))
                self._turns[ledger.boot_id] = turn
            if now < turn.retry_at:
                continue
            if self._send(self._topic, sign_message(self._key, ledger.to_message()), False):
                turn.retry_at = now + turn.backoff.next_s()

    def _send(self, topic: str, payload: bytes, retain: bool) -> bool:
        mid = self._publish(topic, payload, retain)
        if mid is not None:
            self._unacknowledged.add(mid)
        return mid is not None
