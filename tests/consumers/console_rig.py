"""A console without Kafka and without a server, fed with signed verdicts."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image, ImageFilter
from sqlalchemy import insert
from starlette.testclient import TestClient

from benchmarks.harness.recorder_store import MadeRecord
from consumers.console.access.cookies import COOKIE
from consumers.console.access.owner import owner_name
from consumers.console.context import ConsoleContext
from consumers.console.data.feed import Feed
from consumers.console.data.roles import ReadRoles
from consumers.console.data.store import Store
from consumers.console.database_poller import DatabasePoller
from consumers.console.jobs.jobs import Launch
from consumers.console.role import open_context
from consumers.console.settings import ConsoleSettings, JobSettings
from consumers.console.web import make_app
from consumers.database.tables import alerts
from consumers.records.rows import FrameRow
from schemas.clock import monotonic_ms
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.pointillist_pb2 import Alert, Verdict
from schemas.runtime.health import Health
from tests.consumers.recorder_rig import BOOT, CAMERA, PNG, SECRET, Rig, sign_as_processor

OWNER = owner_name()
"""The author of actions in a console without logins."""
ALERT = "ab" * 16
OTHER = "cd" * 16
"""Ids of alerts."""
CONSOLE_KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.CONSOLE))
ROW = FrameRow(
    camera=CAMERA, boot=1, seq=0, captured_ms=10**6, processed_ms=0, recorded_ms=0, class_id=0, class_name="car",
    confidence=0.9, model_id="m", policy="resize", truth=0, width=96, height=96, channels=3, dropped_per_block=16,
    whole=False, profile=0, frame_bytes=1, pixel_bytes=1, strip=0, entropy_bits=0.0, threshold_bits=0.0, flagged=False,
    class_group="", best="",
)  # fmt: skip
"""A verdict of a camera on a frame."""


def jpeg_scene(seed: int = 0, *, blur: float = 0.0, dark: bool = False, side: int = 96) -> bytes:
    """Return a picture with edges as JPEG."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 255, (8, 8), np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST)
    noisy = np.asarray(image).astype(int) + generator.integers(-12, 12, (side, side))
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8) // (40 if dark else 1))
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return data.getvalue()


@cache
def _new_store() -> bytes:
    # A copy takes less time than creating the tables.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "console.sqlite"
        with Store.opened(f"sqlite:///{file}"):
            pass
        return file.read_bytes()


@dataclass
class ConsoleRig:
    """A console's context with its feed, and browsers without scripts."""

    folder: Path
    users: Path | None = None
    page_cards: int = 60
    jobs: JobSettings | None = None
    launch: Launch | None = None
    prometheus: str | None = None
    read_roles: ReadRoles | None = None
    clock_s: Callable[[], float] = time.monotonic
    changed: Mapping[str, object] = field(default_factory=dict)
    """Settings of the console that differ from the rig's."""
    context: ConsoleContext = field(init=False)

    def __post_init__(self) -> None:
        store = self.folder / "console.sqlite"
        if not store.exists():
            store.write_bytes(_new_store())
        settings = ConsoleSettings(
            kafka="127.0.0.1:1",
            database=f"sqlite:///{self.folder}/records.sqlite",
            quarantine=str(self.folder / "quarantine"),
            store=f"sqlite:///{store}",
            http=("127.0.0.1", 0),
            users=self.users,
            owner_file=self.folder / "owner.token",
            page_cards=self.page_cards,
            jobs=self.jobs,
            prometheus=self.prometheus,
        ).model_copy(update=self.changed)
        self.context = open_context(settings, CONSOLE_KEYS, self.launch, self.read_roles, self.clock_s)
        self.feed = Feed(settings, CONSOLE_KEYS, self.context.fleet, Health())

    def browser(self) -> TestClient:
        """Return a browser, logged in as the owner if the console has no logins."""
        browser = self.visitor()
        self.open_link(browser)
        return browser

    def open_link(self, browser: httpx2.Client | httpx2.AsyncClient) -> None:
        """Open the owner's link if the console has no logins."""
        if not self.context.login_methods.logs_in:
            browser.cookies.set(COOKIE, self.context.sessions.begin_owner(), domain="127.0.0.1", path="/")

    def visitor(self, address: str = "testclient") -> TestClient:
        """Return a browser without a session, whose requests come from `address`."""
        app = make_app(self.context)
        return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False, client=(address, 50_000))

    def show(self, verdicts: Iterable[Verdict], camera: str = CAMERA) -> None:
        """Feed the verdicts of a camera, and update the fleet that pages show."""
        topic = self.context.settings.verdicts_topic
        records = [
            MadeRecord(topic, 0, offset, camera.encode(), sign_as_processor(message, camera))
            for offset, message in enumerate(verdicts)
        ]
        self.feed.show(records)
        self.tick()

    def tick(self, later_ms: int = 0) -> None:
        """Update the fleet that pages show, as if `later_ms` had passed."""
        self.context.fleet.tick(monotonic_ms() + later_ms)

    def csrf(self) -> str:
        """Return the token of forms in a console without logins."""
        assert self.context.sessions.owner is not None
        return self.context.sessions.owner.csrf

    def close(self) -> None:
        """Close the context and its store."""
        self.context.close()
        self.context.store.close()


def poll(console: ConsoleRig) -> None:
    """Read the recorder's database once, as a running console does, and update the shown fleet."""
    context = console.context
    poller = DatabasePoller(context.recorded, context.fleet, context.reviews, Health(), context.published_ms)
    poller.apply(poller.poll())
    poller.close()
    console.tick()


def raise_alert(recorder: Rig, alert_id: str = ALERT, camera: str = CAMERA, ago_s: int = 0, **changed: object) -> None:
    """Store an alert that was raised `ago_s` ago. `changed` are its columns that differ from the usual ones."""
    now_ms = time.time_ns() // 10**6 - 1000 * ago_s
    message = Alert(alert_id=alert_id, camera_id=camera, boot_id=BOOT, class_id=3, thumbnail=PNG).SerializeToString()
    row = {
        "alert_id": alert_id, "camera": camera, "boot": BOOT, "kind": "strip", "raised_ms": now_ms, "first": 1,
        "last": 9, "checked": 8, "flagged": 7, "mean_entropy_bits": 0.1, "threshold_bits": 0.5, "baseline_bits": 1.2,
        "evidence_octaves": 6.5, "mean_p_value": 0.0, "p_value_threshold": 0.0, "baseline_p_value": 0.0, "statistic": 0,
        "window": "8 0 24 16 0.93", "message": message, "published": True,
        "wanted": "", "confidence": 0.0, "ended_ms": 0, "partition": 0,
    }  # fmt: skip
    with recorder.engine.begin() as connection:
        connection.execute(insert(alerts), [row | changed])
