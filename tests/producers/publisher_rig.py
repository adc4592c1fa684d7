"""Publishers with their own spools on a real broker; the tests feed them frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings, Publisher, WindowSettings
from producers.publisher.commands import CameraControl
from producers.simulation.faults import FaultPlan, FaultyLink
from producers.spool import Spool, SpoolLimits
from schemas.identity import CameraId, Identity
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import Encoding, encode_frame
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import Meta
from schemas.waiting import cancel
from tests.producers.fake_bridge import SECRET
from tests.waiting import until

QUICK = LinkSettings(
    keepalive_s=3, grace_s=0.3, retry_s=0.5, retry_max_s=2.0, ledger_every_s=0.5, connect_timeout_s=1.0
)
STEADY = QUICK.model_copy(update={"keepalive_s": 60, "connect_timeout_s": 60.0})
"""For tests that count connections: a stalled test process does not cost one."""
ONCE = STEADY.model_copy(update={"grace_s": 3.0, "retry_s": 30.0, "retry_max_s": 30.0})
"""For tests that count frames: a late confirmation does not cause a resend."""
PICTURE = np.zeros((16, 16, 3), np.uint8)
LARGE = np.random.default_rng(7).integers(0, 256, (256, 256, 3), np.uint8)
"""A picture whose frame takes more than 100,000 bytes."""


class Switch(FaultPlan):
    """A fault plan whose connection a test cuts and restores."""

    def __init__(self) -> None:
        super().__init__(())
        self.cut = False

    def is_cut_off(self, now_ms: int) -> bool:
        return self.cut


class Camera:
    """A publisher with its own spool; the test feeds it frames."""

    def __init__(
        self,
        folder: Path,
        broker: tuple[str, int],
        camera_id: CameraId,
        frames: int,
        link: LinkSettings,
        limits: SpoolLimits,
    ) -> None:
        self.key = derive_camera_key(SECRET, camera_id)
        self.camera_id = camera_id
        self.spool = Spool(folder, camera_id, limits)
        self.control = CameraControl(folder, self.key, Encoding())
        self.broker = Broker(*broker, at_once=2)
        self._switch = Switch()
        self.publisher = Publisher(
            self.key,
            self.spool,
            self.control,
            lambda: Meta(install_id=self.spool.install_id, dropped_per_block=self.control.encoding.dropped_per_block),
            self.broker,
            WindowSettings(frames=frames),
            link,
            Instruments(CollectorRegistry()),
            lambda link: FaultyLink(link, self._switch),
        )
        self.in_flight_peak = 0
        self._ticking = asyncio.create_task(self._tick())

    def publish(self, count: int, picture: Picture = PICTURE) -> None:
        for _ in range(count):
            boot_id, seq = self.spool.current.boot_id, self.spool.current.next
            now_ms = time.time_ns() // 10**6
            payload = encode_frame(self.key, boot_id, seq, now_ms, picture, self.control.encoding)
            self.publisher.publish(payload, seq, now_ms, picture.nbytes)

    def identities(self, *seqs: int) -> list[Identity]:
        return [Identity(self.camera_id, self.spool.current.boot_id, seq) for seq in seqs]

    def cut(self, cut: bool) -> None:
        """Cut the connection, or restore it if `cut` is false."""
        self._switch.cut = cut
        self.publisher.link.tick(time.monotonic())

    async def _tick(self) -> None:
        while True:
            self.publisher.tick(time.monotonic())
            self.in_flight_peak = max(self.in_flight_peak, len(self.publisher._window))
            await asyncio.sleep(0.05)  # a camera's own clock

    async def drain(self) -> None:
        self.publisher.finish()
        await until(lambda: self.spool.drained)

    async def close(self) -> None:
        await cancel(self._ticking)
        await self.publisher.close(1.0)
        self.spool.close()


@asynccontextmanager
async def camera(
    folder: Path,
    broker: tuple[str, int],
    camera_id: CameraId,
    frames: int = 256,
    link: LinkSettings = QUICK,
    limits: SpoolLimits | None = None,
) -> AsyncIterator[Camera]:
    made = Camera(folder, broker, camera_id, frames, link, limits or SpoolLimits())
    try:
        yield made
    finally:
        await made.close()
