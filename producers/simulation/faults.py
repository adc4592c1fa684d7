"""Faults of simulated cameras, injected by decorators of their source and of their connection."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from producers.publisher.link import Link
from producers.scene.sticker import paste_sticker
from producers.simulation.lens import attack
from producers.simulation.red_team import RedTeam
from producers.simulation.scenario import Fault
from producers.sources.source import CapturedFrame, Source
from schemas.clock import unix_ms
from schemas.pixels.planes import to_picture

_DARK_POLL_S: Final = 0.05
_CHANGES: Final = ("freeze", "black", "sticker", "attack")
"""Kinds of faults that change the picture."""


class FaultPlan:
    """The faults of one camera on the fleet's clock, which continues through restarts.

    No fault is active before `begin`.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.kinds = {fault.kind for fault in faults}
        self._faults = faults
        self._started_ms = math.inf

    def begin(self, started_ms: int) -> None:
        """Start the clock: `started_ms` is the fleet's first capture, Unix time in milliseconds."""
        self._started_ms = started_ms

    def active(self, kind: str, now_ms: int) -> Fault | None:
        """Return the first fault of this kind that is active at a Unix time in milliseconds."""
        at_s = (now_ms - self._started_ms) / 1000
        of_kind = (fault for fault in self._faults if fault.kind == kind)
        return next((fault for fault in of_kind if fault.at_s <= at_s < fault.at_s + fault.for_s), None)

    def is_dark(self, now_ms: int) -> bool:
        """Return whether the camera is dark."""
        return self.active("dark", now_ms) is not None

    def is_cut_off(self, now_ms: int) -> bool:
        """Return whether the camera has no connection."""
        return self.is_dark(now_ms) or self.active("disconnect", now_ms) is not None


class FaultySource:
    """A `Source` with the faults of a plan, which change its pictures and their ground truth.

    `red_team` holds the generators of the attacks. While the camera is dark, `read` waits.
    """

    def __init__(
        self,
        source: Source,
        plan: FaultPlan,
        red_team: RedTeam | None = None,
        clock_ms: Callable[[], int] = unix_ms,
    ) -> None:
        self.kind = source.kind
        self.live = source.live
        self.blocking = source.blocking or not plan.kinds.isdisjoint(("dark", "attack"))
        self.on_demand = not source.live
        self._source = source
        self._plan = plan
        self._red_team = red_team
        self._clock_ms = clock_ms
        self._closed = threading.Event()
        self._frozen: CapturedFrame | None = None

    def seek(self, position: int) -> None:
        """Make the next read return the picture of this position."""
        self._source.seek(position)

    def read(self) -> CapturedFrame | None:
        """Return the next picture; None at the end of the source or after `close`."""
        while self._plan.is_dark(self._clock_ms()):
            if self.live:
                if self._source.read() is None:
                    return None
            elif self._closed.wait(_DARK_POLL_S):
                return None
        captured = self._source.read()
        if captured is None:
            return None
        return self._apply(captured, self._clock_ms() if captured.captured_ms is None else captured.captured_ms)

    def close(self) -> None:
        """Close the source."""
        self._closed.set()
        self._source.close()

    def _apply(self, captured: CapturedFrame, now_ms: int) -> CapturedFrame:
        active = self._plan.active
        if captured.planes is not None and any(active(kind, now_ms) for kind in _CHANGES):
            # A camera sends planes where it has them, and the faults change pictures.
            captured = captured._replace(picture=to_picture(captured.planes), planes=None)
        if active("freeze", now_ms) is None:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = captured
        else:
            captured = captured._replace(picture=self._frozen.picture, truth=self._frozen.truth)
        if active("black", now_ms) is not None:
            captured = captured._replace(picture=np.zeros_like(captured.picture), truth=None)
        if active("sticker", now_ms) is not None:
            truth = captured.truth._replace(sticker=True) if captured.truth else None
            captured = captured._replace(picture=paste_sticker(captured.picture), truth=truth)
        fault = active("attack", now_ms)
        return captured if fault is None else self._attack(captured, fault)

    def _attack(self, captured: CapturedFrame, fault: Fault) -> CapturedFrame:
        """Return the picture under an attack; a picture that already shows the target's class stays unchanged."""
        assert self._red_team is not None
        assert fault.generator is not None  # by the fault's own check
        generator, truth = self._red_team.generators[fault.generator], captured.truth
        shown = truth.class_id if truth else None
        target = generator.settings.target_of(fault.aim, shown, captured.position)
        if target == shown:
            return captured
        eps = generator.settings.eps if fault.eps is None else fault.eps
        marked = truth._replace(attacked=True) if truth else None
        with self._red_team.one_core:
            picture = attack(captured.picture, generator, target, eps)
        return captured._replace(picture=picture, truth=marked)


class FaultyLink:
    """A `Connection` that breaks, as in a network failure, while the plan disconnects the camera."""

    def __init__(self, link: Link, plan: FaultPlan, clock_ms: Callable[[], int] = unix_ms) -> None:
        self.wanted = True
        self.idle = False
        self._link = link
        self._plan = plan
        self._clock_ms = clock_ms

    @property
    def up(self) -> bool:
        """Whether it is connected."""
        return self._link.up

    @property
    def subscription_refused(self) -> bool:
        """Whether the broker has refused a topic of the camera on this connection."""
        return self._link.subscription_refused

    @property
    def connections(self) -> int:
        """The number of connections since the start."""
        return self._link.connections

    @property
    def blocked(self) -> bool:
        """Whether the socket has not yet taken all bytes."""
        return self._link.blocked

    def tick(self, now: float) -> None:
        """Cut the connection, or keep it alive. `now` is monotonic, in seconds."""
        self.wanted = not self._plan.is_cut_off(self._clock_ms())
        if self.wanted:
            self._link.tick(now)
        else:
            self._link.cut()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Send at QoS 1; returns the message id, None when there is no connection."""
        return self._link.publish(topic, payload, retain)

    async def close(self, timeout_s: float) -> None:
        """Disconnect, end the session and release the socket."""
        await self._link.close(timeout_s)
