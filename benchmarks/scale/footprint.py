"""Memory and disk of a server: `python -m benchmarks.scale.footprint [--json FILE]`.

Two systems run after each other, each by `pointillist up` on an empty state folder, with all that it starts by default:

    scene     8 simulated cameras of 32×32, the default, with the scene network
    general   `--cameras 0` with the general network, and one camera that plays a sample video at 2 frames a second

Each runs until the first verdict is recorded, then for `--warm` seconds. Then the memory of each role is read: its
proportional set size (PSS), with the processes that it has started. PSS divides a page by the number of processes that
share it, so the sum of all roles is the memory of the system, if no other program shares pages with it: the program
refuses to measure next to one that has loaded PyTorch. The camera of `general` is not counted.

Disk is the space on the disk: of the state folder at that time, of the Python packages that `make setup` installs, and
of Kafka's program files with their class archive.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.data_sets import sample_video
from benchmarks.harness.document import machine, report
from benchmarks.harness.records import count_frames
from benchmarks.harness.system import COMMAND, RunningSystem, undisturbed
from benchmarks.harness.waiting import wait_until
from bundles import GENERAL
from infra.local.kafka_jars import class_archive, jar_folder, java_binary, kafka_jars
from infra.state_folder import Layout

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ROOT / "requirements" / "server.txt"
"""The packages that `make setup` installs."""
CUDA: Final = ("cuda", "nvidia", "torch", "triton")
"""Beginnings of the names of PyTorch and of the packages that it needs for a GPU."""
PATIENCE_S: Final = 600.0
FPS: Final = 2
_PACKAGE: Final = re.compile(r"^([A-Za-z0-9._-]+)==[^\s;]+ *(;?)", re.MULTILINE)
"""A package, and the beginning of a condition on the machine."""


def used_bytes(files: Iterable[Path]) -> int:
    """Return the space that files take on the disk; hard links to one file count once, and missing files not at all."""
    sizes = {}
    for file in files:
        with suppress(OSError):
            found = file.lstat()
            sizes[found.st_dev, found.st_ino] = 512 * found.st_blocks
    return sum(sizes.values())


def folder_bytes(folder: Path) -> int:
    """Return the space that a folder takes on the disk."""
    return used_bytes([folder, *folder.rglob("*")])


def package_bytes() -> dict[str, int]:
    """Return the space of each package that `make setup` installs, with its compiled modules.

    Packages for other machines are left out. Raises RuntimeError if another one is not installed here.
    """
    sizes = {}
    for name, condition in _PACKAGE.findall(PACKAGES.read_text()):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if condition:
                continue
            raise RuntimeError(f"{name}: expected an installed package, got none. Run `make setup`.") from None
        files = [Path(str(found.locate_file(each))) for each in found.files or ()]
        compiled = [Path(cache_from_source(str(each))) for each in files if each.suffix == ".py"]
        sizes[name] = used_bytes([*files, *compiled])
    return sizes


def memory_bytes(system: RunningSystem) -> dict[str, int]:
    """Return the proportional set size of each role with the processes that it has started, and of the supervisor."""
    sizes = {}
    for role, pid in [*((role, entry["pid"]) for role, entry in system.roles().items()), ("up", system.process.pid)]:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            own = [process] if role == "up" else [process, *process.children(recursive=True)]
            sizes[role] = sum(each.memory_full_info().pss for each in own)
    return sizes


def require_unshared(system: RunningSystem) -> None:
    """Raise RuntimeError if a process outside the system has loaded PyTorch: it would take a part of shared pages."""
    supervisor = psutil.Process(system.process.pid)
    own = {each.pid for each in (supervisor, *supervisor.children(recursive=True))}
    others = [each.pid for each in psutil.process_iter() if each.pid not in own and _has_torch(each)]
    if others:
        raise RuntimeError(f"memory: expected no other process with PyTorch, got {others}. Stop these processes first.")


def _has_torch(process: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError):
        return any(Path(each.path).name.startswith("libtorch") for each in process.memory_maps())
    return False


@contextmanager
def attached(system: RunningSystem) -> Iterator[None]:
    """Attach one camera that plays a sample video, once the system is ready."""
    wait_until(lambda: "ready after" in system.output(), "a ready system", PATIENCE_S, system=system)
    command = [*COMMAND, "camera", "attach", str(sample_video()), "--state", str(system.state), "--name", "door"]
    with system.state.with_name("camera.log").open("wb") as log:
        process = subprocess.Popen([*command, "--fps", str(FPS), "--loop"], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def measure(state: Path, warm_s: float, *options: object) -> dict[str, Any]:
    """Run one system with `options`; without cameras of its own, one is attached."""
    database = Layout(state).database
    with RunningSystem(state, *options) as system:
        with attached(system) if "--cameras" in options else nullcontext():
            wait_until(lambda: count_frames(database), "a verdict", PATIENCE_S, system=system)
            time.sleep(warm_s)
            require_unshared(system)
            memory = memory_bytes(system)
            found = {
                "options": " ".join(str(each) for each in options if not isinstance(each, Path)),
                "verdicts": count_frames(database),
                "memory_bytes": memory,
                "memory_bytes_in_all": sum(memory.values()),
                "state_bytes": folder_bytes(state),
            }
        system.interrupt()
        _, ended = system.wait(PATIENCE_S)
        undisturbed(ended, system.output())
    return found | {"frames_lost": ended["frames_lost"]}


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(__doc__, json=Path, warm=Option(60.0, "Seconds from the first verdict to the reading."))
    with tempfile.TemporaryDirectory(prefix="pointillist-footprint-") as folder:
        place = Path(folder)
        general = place / GENERAL
        # In another process: this one must not load PyTorch.
        subprocess.run(
            [*COMMAND, "bundle", "create", "--imagenet", "--out", str(general)], check=True, stdout=sys.stderr
        )
        systems = {
            "scene": measure(place / "scene", arguments.warm),
            "general": measure(place / "general", arguments.warm, "--cameras", 0, "--bundle", general),
        }
    packages = package_bytes()
    jars = kafka_jars()
    report(
        {
            "command": arguments.command,
            "machine": machine("torch", "psutil") | {"memory_bytes": psutil.virtual_memory().total},
            "warm_s": arguments.warm,
            "disk_bytes": {
                "packages": sum(packages.values()),
                "packages_of_torch": sum(size for name, size in packages.items() if name.startswith(CUDA)),
                "environment": folder_bytes(Path(sys.prefix)),
                "kafka": folder_bytes(jar_folder()) + used_bytes([class_archive(java_binary(), jars)]),
            },
            "systems": systems,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
