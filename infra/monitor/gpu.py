"""Metrics of GPUs, from NVIDIA's own tool; a machine without a GPU has none."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Gauge

from schemas import metrics

_FIELDS: Final = "index,utilization.gpu,memory.used,memory.free,temperature.gpu,power.draw"
_TIMEOUT_S: Final = 10.0
_MEBIBYTE: Final = 2**20


class GpuReading(NamedTuple):
    """One GPU; a value that the tool does not report is None."""

    gpu: str
    busy: float | None
    """Utilisation from 0 to 1."""
    used_bytes: float | None
    free_bytes: float | None
    celsius: float | None
    watts: float | None


def parse_readings(text: str) -> Iterator[GpuReading]:
    """Read the lines of `nvidia-smi --query-gpu`, in CSV without header and units; other lines are skipped."""
    for line in text.splitlines():
        name, *values = (part.strip() for part in line.split(","))
        if len(values) != 5 or not name.isdigit():
            continue
        busy, used, free, celsius, watts = map(_number, values)
        yield GpuReading(
            name,
            None if busy is None else busy / 100,
            None if used is None else used * _MEBIBYTE,
            None if free is None else free * _MEBIBYTE,
            celsius,
            watts,
        )


def _number(text: str) -> float | None:
    """Read a number; None for `[N/A]` and similar values."""
    try:
        return float(text)
    except ValueError:
        return None


class GpuMetrics:
    """The metrics of all GPUs of this machine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._program = shutil.which("nvidia-smi")
        self._busy = metrics.GPU_BUSY.on(registry)
        self._memory = metrics.GPU_MEMORY.on(registry)
        self._temperature = metrics.GPU_TEMPERATURE.on(registry)
        self._power = metrics.GPU_POWER.on(registry)
        self._present: set[tuple[Gauge, tuple[str, ...]]] = set()
        """The series with a value."""

    async def measure(self) -> None:
        """Update the metrics. Raises OSError and TimeoutError when the tool does not answer."""
        if self._program is None:
            return
        try:
            text = await self._query(self._program)
        except BaseException:
            self._set(())
            raise
        self._set(parse_readings(text))

    async def _query(self, program: str) -> str:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--query-gpu={_FIELDS}",
            "--format=csv,noheader,nounits",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer, _ = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        return answer.decode(errors="replace")

    def _set(self, readings: Iterable[GpuReading]) -> None:
        """Set the values of the readings, and remove the series of all others: a GPU may disappear."""
        values = {series: value for each in readings for series, value in self._values(each) if value is not None}
        for gauge, labels in self._present - values.keys():
            gauge.remove(*labels)
        for (gauge, labels), value in values.items():
            gauge.labels(*labels).set(value)
        self._present = set(values)

    def _values(self, each: GpuReading) -> Iterator[tuple[tuple[Gauge, tuple[str, ...]], float | None]]:
        yield (self._busy, (each.gpu,)), each.busy
        yield (self._temperature, (each.gpu,)), each.celsius
        yield (self._power, (each.gpu,)), each.watts
        yield (self._memory, (each.gpu, "used")), each.used_bytes
        yield (self._memory, (each.gpu, "free")), each.free_bytes
