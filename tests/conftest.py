"""Fixtures with real brokers, each started once, on first use, and stopped by its process id."""

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

# Set before anything imports torch, and inherited by the processes that tests start. The tensors here are small: next
# to the brokers, threads that wait for each other take minutes where one thread takes seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Images set this variable. Without bytecode each `pointillist` that a test starts compiles its modules for longer than
# it runs, and so does each worker that collects the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Bundles of the tests name factories below `tests`.
os.environ["POINTILLIST_FACTORIES"] = "tests"
# Some of these bundles contain code.
os.environ["POINTILLIST_ALLOW_CODE"] = "1"

# A busy machine may take a second to run an example, or to generate one.
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

# A traceback with all local variables takes seconds to render, and a mutation run would count that as an endless loop.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

pytest_plugins = ["tests.scheduling"]
_cache = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the session and its child processes an empty cache. Kafka's files and the caches of other programs stay
    the user's.
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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage during the imports: that takes a fifth of their time, and they leave little."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Keep the imported modules and the collected tests out of later garbage collections: a million objects each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def late_counters_start_at_once() -> Iterator[None]:
    """Make late counters count from the start, so that no test waits for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_counter, "AT_ZERO_S", 0.0)
        yield


@pytest.fixture
def patient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait 30 s for a busy Kafka node. Their usual 2 s assume other nodes, and the tests have one."""
    monkeypatch.setattr("schemas.transport.kafka.nodes.CONNECT_S", 30.0)


READY_S = 120.0
"""Timeout for the start of a broker or a database, in seconds. If a start fails, all tests of its worker fail."""
S = TypeVar("S", bound=Service)
TopicFactory = Callable[..., Awaitable[str]]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Return an empty state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MiB and yield its folder. Skip the test if mounting is not permitted."""
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
    """Fill `disk` to the last byte. Return the file that does so; its removal frees the space again."""
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
    """Yield the state folder of the session's brokers. It is removed at the end, because their data can be large."""
    folder = tmp_path_factory.mktemp("brokers")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def running_services() -> list[Service]:
    """Return the list of the session's brokers that have been started so far."""
    return []


@pytest.fixture(scope="session")
def mosquitto(broker_state: Path, running_services: list[Service]) -> Iterator[Mosquitto]:
    """Yield a real mosquitto with `host`, `port`, and `restart stop start kill pause resume`. Fail if it is missing."""
    yield from _run(Mosquitto(broker_state, ready_s=READY_S), running_services)


@pytest.fixture(scope="session")
def kafka(broker_state: Path, running_services: list[Service]) -> Iterator[Kafka]:
    """Yield a real Kafka with `bootstrap`, and `restart stop start kill pause resume`. Fail without Java or Maven."""
    yield from _run(Kafka(broker_state, ready_s=READY_S), running_services)


@pytest.fixture(scope="session")
def postgresql(running_services: list[Service]) -> Iterator[PostgreSQL]:
    """Yield a real PostgreSQL with `url`, `create`, `restart stop start pause resume`. Fail if it is missing."""
    with passing_folder() as folder:
        yield from _run(PostgreSQL(folder, ready_s=READY_S), running_services)


def _run(service: S, running: list[Service]) -> Iterator[S]:
    with started(service):
        running.append(service)
        yield service


@pytest.fixture(autouse=True)
def restored_brokers(running_services: list[Service]) -> Iterator[None]:
    """Resume or restart the session's brokers after a test that paused or stopped them."""
    yield
    for service in running_services:
        service.resume()
        if service.poll() is not None:
            service.start()


@pytest.fixture
def kafka_topics(kafka: Kafka) -> TopicFactory:
    """Return a coroutine function that creates a topic under a new name and returns the name.

    Its arguments are the number of partitions (1) and other fields of `TopicSpec` by name.
    """

    async def make(partitions: int = 1, **spec: object) -> str:
        name = f"test-{uuid.uuid4().hex}"
        await create_topics(kafka.bootstrap, {name: TopicSpec(partitions, **spec)})  # type: ignore[arg-type]
        return name

    return make


@pytest.fixture
def keyed_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let frames of `lossless` depend on a key frame, like those of `video`."""
    monkeypatch.setattr("schemas.messages.frame.KEYED_PROFILES", frozenset({LOSSLESS, VIDEO}))
