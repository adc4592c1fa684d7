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
from starlette.testclient import TestClient

from benchmarks.harness.recorder_store import MadeRecord
from consumers.console.access.cookies import COOKIE
from consumers.console.access.owner import owner_name
from consumers.console.context import ConsoleContext
from consumers.console.data.feed import Feed
from consumers.console.data.roles import ReadRoles
from consumers.console.data.store import Store
from consumers.console.jobs.jobs import Launch
from consumers.console.role import open_context
from consumers.console.settings import ConsoleSettings, JobSettings
from consumers.console.web import make_app
from schemas.clock import monotonic_ms
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.pointillist_pb2 import Verdict
from schemas.runtime.health import Health
from tests.consumers.recorder_rig import CAMERA, SECRET, sign_as_processor

OWNER = owner_name()
"""The author of actions in a console without logins."""
CONSOLE_KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.CONSOLE))


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
