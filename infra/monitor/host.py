"""The machine: its cores, its memory, its disks, its network."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
from prometheus_client import CollectorRegistry

from infra.monitor.mirrored_counters import MirroredCounter, MirroredSum
from schemas import metrics

_BLOCK_DEVICES: Final = Path("/sys/block")


class HostMetrics:
    """Reads the kernel's figures; a metric is left out if the kernel lacks it, as in some containers."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        """`folder` selects the disk for the free space."""
        self._folder = folder
        cpu, self._memory = metrics.HOST_CPU.on(registry), metrics.HOST_MEMORY.on(registry)
        # The kernel's times may fall a little (proc_stat(5)), and never restart while this process runs.
        self._busy, self._idle = (MirroredCounter(cpu, mode, restarts=False) for mode in ("busy", "idle"))
        self._disk, self._load = metrics.HOST_DISK.on(registry), metrics.HOST_LOAD.on(registry)
        io, network = metrics.HOST_DISK_IO.on(registry), metrics.HOST_NETWORK.on(registry)
        self._read, self._written = (MirroredSum(io, way) for way in ("read", "written"))
        self._received, self._sent = (MirroredSum(network, way) for way in ("received", "sent"))

    def measure(self) -> None:
        """Update the metrics."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # A guest's time is part of its user's time.
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        self._idle.update(idle)
        self._busy.update(sum(times) - idle - guests)
        memory = psutil.virtual_memory()
        self._memory.labels("used").set(memory.total - memory.available)
        self._memory.labels("available").set(memory.available)
        disk = psutil.disk_usage(str(self._folder))
        self._disk.labels("used").set(disk.used)
        self._disk.labels("free").set(disk.free)
        self._load.set(os.getloadavg()[0] / (os.cpu_count() or 1))
        cards = {name: card for name, card in psutil.net_io_counters(pernic=True).items() if name != "lo"}
        self._received.update({name: card.bytes_recv for name, card in cards.items()})
        self._sent.update({name: card.bytes_sent for name, card in cards.items()})
        with suppress(NotImplementedError):  # some containers have no figures of disks
            disks = {name: disk for name, disk in psutil.disk_io_counters(perdisk=True).items() if _is_whole_disk(name)}
            self._read.update({name: disk.read_bytes for name, disk in disks.items()})
            self._written.update({name: disk.write_bytes for name, disk in disks.items()})


def _is_whole_disk(disk: str) -> bool:
    """Return whether a device of the kernel is a whole disk: its figures include those of its partitions."""
    return not _BLOCK_DEVICES.is_dir() or (_BLOCK_DEVICES / disk.replace("/", "!")).exists()
