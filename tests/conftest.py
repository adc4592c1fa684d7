"""Real brokers for the tests that need them: started once, on first use, and ended by pid."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

from benchmarks.harness.postgresql import PostgreSQL, passing_folder
from benchmarks.harness.services import started
from infra.local.kafka import Kafka
from infra.local.kafka_jars import jar_folder
from infra.local.mosquitto import Mosquitto
from infra.local.service import Service
from infra.local.topics import TopicSpec, create_topics
from schemas import late_counter
from schemas.pointillist_pb2 import LOSSLESS, VIDEO

# Before anything imports torch, and for every process that a test starts: the tensors here are small, and threads that
# wait for each other beside the brokers take minutes where one thread takes seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Images set this variable. Without bytecode each `pointillist` that a test starts compiles its modules for longer than
# it runs, and so does each worker that collects the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# The tests' own bundles name their factories here.
os.environ["POINTILLIST_FACTORIES"] = "tests"
# And some bring code of their own.
os.environ["POINTILLIST_ALLOW_CODE"] = "1"

# A busy machine may take a second for an example, or to draw one.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
# For mutation runs: the same examples every time, and no search for the smallest one that fails.
settings.register_profile(
    "mutants",
    parent=settings.get_profile("suite"),
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)

# A traceback with all local variables takes seconds of drawing, in which a change counts as one that never ends.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

pytest_plugins = ["tests.scheduling"]
_cache = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a cache of its own, also in the processes that it starts. Kafka's files and other programs'
    caches stay the user's.
    """
    if hasattr(config, "workerinput"):
        return  # xdist's worker has the session's environment
    jars = jar_folder()
    base = jars.parent.parent
    config.stash[_cache] = session = Path(tempfile.mkdtemp(prefix="pointillist-cache-"))
    for other in base.iterdir() if base.is_dir() else ():
        if other.name != jars.parent.name:
            (session / other.name).symlink_to(other)
    os.environ["XDG_CACHE_HOME"] = str(session)
    jar_folder().parent.mkdir()
    jar_folder().symlink_to(jars)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's cache."""
    if _cache in config.stash:
        shutil.rmtree(config.stash[_cache], ignore_errors=True)


def pytest_collection_finish() -> None:
    """Keep the imported modules and the collected tests out of later garbage collections: a million objects each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def late_counters_count_at_once() -> Iterator[None]:
    """Let no test wait until a series begins to count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_counter, "AT_ZERO_S", 0.0)
        yield


@pytest.fixture
def patient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait for a busy Kafka. They give up on a node after 2 s, which is right where there are others."""
    monkeypatch.setattr("schemas.transport.kafka.nodes.CONNECT_S", 30.0)


READY_S = 120.0
"""Longest start of a broker or a database: if one fails, so do all tests of its worker."""
S = TypeVar("S", bound=Service)
TopicFactory = Callable[..., Awaitable[str]]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """An empty state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own; skips where nobody may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a disk cannot be mounted here: that takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free on `disk`; the file that takes them, whose removal makes room again."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while file.write(bytes(2**16)) == 2**16:
            pass
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while file.write(b"\0"):
            pass
    return ballast


@pytest.fixture(scope="session")
def broker_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of the session's brokers, removed at the end: their data can be large."""
    folder = tmp_path_factory.mktemp("brokers")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def running_services() -> list[Service]:
    """The session's brokers that have been started so far."""
    return []


@pytest.fixture(scope="session")
def mosquitto(broker_state: Path, running_services: list[Service]) -> Iterator[Mosquitto]:
    """A real mosquitto: `host`, `port`, and `restart stop start kill pause resume`. Fails when not installed."""
    yield from _run(Mosquitto(broker_state, ready_s=READY_S), running_services)


@pytest.fixture(scope="session")
def kafka(broker_state: Path, running_services: list[Service]) -> Iterator[Kafka]:
    """A real Kafka: `bootstrap`, and `restart stop start kill pause resume`. Fails without Java or Maven."""
    yield from _run(Kafka(broker_state, ready_s=READY_S), running_services)


@pytest.fixture(scope="session")
def postgresql(running_services: list[Service]) -> Iterator[PostgreSQL]:
    """A real PostgreSQL: `url`, `create` and `restart stop start pause resume`. Fails when not installed."""
    with passing_folder() as folder:
        yield from _run(PostgreSQL(folder, ready_s=READY_S), running_services)


def _run(service: S, running: list[Service]) -> Iterator[S]:
    with started(service):
        running.append(service)
        yield service


@pytest.fixture(autouse=True)
def brokers_back(running_services: list[Service]) -> Iterator[None]:
    """Give the next test the brokers running, whatever this one did to them."""
    yield
    for service in running_services:
        service.resume()
        if service.poll() is not None:
            service.start()


@pytest.fixture
def kafka_topics(kafka: Kafka) -> TopicFactory:
    """`await kafka_topics()` makes a topic under a name never used before and gives its name.

    Takes the partitions (1) and any further field of `TopicSpec` by name.
    """

    async def make(partitions: int = 1, **spec: object) -> str:
        name = f"test-{uuid.uuid4().hex}"
        await create_topics(kafka.bootstrap, {name: TopicSpec(partitions, **spec)})  # type: ignore[arg-type]
        return name

    return make


@pytest.fixture
def keyed_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of `lossless` may depend on a key frame, as those of `video` do."""
    monkeypatch.setattr("schemas.messages.frame.KEYED_PROFILES", frozenset({LOSSLESS, VIDEO}))
