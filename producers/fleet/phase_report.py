"""The phases of a process's camera tasks: as a gauge, in the log, in the health report and in a JSON file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from producers.camera.camera import Camera
from producers.fleet.supervisor import TaskPhase
from producers.metrics import Instruments
from schemas.identity import CameraId
from schemas.runtime.health import Health
from schemas.runtime.json_files import write_json
from schemas.runtime.throttle import Throttle

_log = structlog.get_logger()
_NAMED: Final = 8
"""Most failing cameras that the health report names."""
_AGAIN_S: Final = 60.0
"""Interval between two log lines about a report that cannot be written."""
_UNUSUAL: Final = (TaskPhase.FAILING, TaskPhase.DISCONNECTED)

_Tasks = Mapping[CameraId, tuple[TaskPhase, str, Camera | None]]


class PhaseReport:
    """Publishes the phase of each task; `update` is called about once a second."""

    def __init__(
        self, tasks: Callable[[], _Tasks], instruments: Instruments, health: Health, file: Path | None, *, logs: bool
    ) -> None:
        """`tasks` returns the phase, its reason and the camera of each task. With `logs`, each change is logged."""
        self._tasks = tasks
        self._instruments = instruments
        self._health = health
        self._file = file
        self._logs = logs
        self._logged: dict[CameraId, tuple[TaskPhase, str, tuple[int, int, float]]] = {}
        self._written: dict[CameraId, tuple[TaskPhase, str]] | None = None
        self._logged_failures: Throttle[Path] = Throttle(_AGAIN_S)

    def update(self) -> None:
        """Publish the current phases."""
        tasks = self._tasks()
        counts = Counter(phase for phase, _, _ in tasks.values())
        for phase in TaskPhase:
            self._instruments.camera_tasks.labels(phase).set(counts[phase])
        failing = [f"{name}: {reason}" for name, (phase, reason, _) in tasks.items() if phase is TaskPhase.FAILING]
        more = f" and {len(failing) - _NAMED} more" if len(failing) > _NAMED else ""
        detail = f"{len(failing)} of {len(tasks)} fail: {'; '.join(failing[:_NAMED])}{more}" if failing else ""
        # Always healthy: one failing camera must not restart the process of all others.
        self._health.set("cameras", True, detail)
        if self._logs:
            self._log_changes(tasks)
        if self._file is not None:
            self._write(self._file, {name: (phase, reason) for name, (phase, reason, _) in tasks.items()})

    def _log_changes(self, tasks: _Tasks) -> None:
        for name, (phase, reason, camera) in tasks.items():
            sending = camera.picture_format if camera is not None else (0, 0, 0.0)
            if self._logged.get(name) != (phase, reason, sending):
                self._logged[name] = phase, reason, sending
                log = _log.warning if phase in _UNUSUAL else _log.info
                log(
                    "camera_phase_changed", camera=name, phase=phase.value, reason=reason, width=sending[0],
                    height=sending[1], frames_per_second=sending[2],
                )  # fmt: skip

    def _write(self, file: Path, phases: dict[CameraId, tuple[TaskPhase, str]]) -> None:
        if phases == self._written:
            return
        shown: dict[str, dict[str, str]] = {
            name: {"phase": phase, "detail": why} for name, (phase, why) in sorted(phases.items())
        }
        try:
            write_json(file, shown)
        except OSError as error:
            if self._logged_failures.try_acquire(file, time.monotonic()):
                _log.warning("camera_report_not_written", file=str(file), error=error.strerror)
        else:
            self._written = phases
