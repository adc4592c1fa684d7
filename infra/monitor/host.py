"""The machine: its cores, its memory, its disks, its network."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry

from infra.monitor.follow import Follower
from schemas import metrics


class Host:
    """Reads the kernel's figures; a metric is left out if the kernel lacks it, as in some containers."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        """`folder` selects the disk for the free space."""
        self._folder = folder
        cpu, self._memory = metrics.HOST_CPU.on(registry), metrics.HOST_MEMORY.on(registry)
        self._busy, self._idle = (Follower(cpu, mode) for mode in ("busy", "idle"))
        self._disk, self._load = metrics.HOST_DISK.on(registry), metrics.HOST_LOAD.on(registry)
        io, network = metrics.HOST_DISK_IO.on(registry), metrics.HOST_NETWORK.on(registry)
        self._read, self._written = (Follower(io, way) for way in ("read", "written"))
        self._received, self._sent = (Follower(network, way) for way in ("received", "sent"))

    def look(self) -> None:
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
        io = psutil.disk_io_counters()
        self._read.update(io.read_bytes if io is not None else 0)
        self._written.update(io.write_bytes if io is not None else 0)
        cards = [card for name, card in psutil.net_io_counters(pernic=True).items() if name != "lo"]
        self._received.update(sum(card.bytes_recv for card in cards))
        self._sent.update(sum(card.bytes_sent for card in cards))
