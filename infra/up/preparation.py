"""The checks and notes of `up` before it starts anything: sources, remembered commands, cameras that are gone."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bundles import GENERAL
from consumers.database.engine import database_url
from infra.settings.variable import PREFIX
from infra.state_folder import Layout
from infra.state_folder.console_database import opened_console_database
from infra.up.settings import UpSettings, bundle_folder, checks_for_triggers
from infra.up.system_state import scenario_cameras
from infra.up.table import MOST_NAMED
from producers.camera.camera_settings import CameraSettings
from producers.fleet.part import MAX_PARTS
from producers.publisher.applied_commands import is_paused, overridden, read_command_state
from producers.sources.settings import REAL_KINDS
from producers.sources.trial import remedied, try_sources
from schemas.errors import ConfigError, SourceError, UserError
from schemas.identity import CameraId

PrintLine = Callable[[str], None]
"""Prints one line for the user."""
CAMERAS_OF_A_PROCESS: Final = 2_000
"""Simulated cameras above which a fleet is divided. Each takes 5 ms of CPU time to come online."""


def check_sources(
    layout: Layout, settings: Sequence[CameraSettings], print_line: PrintLine, check: Callable[[], None]
) -> None:
    """Raise SourceError when no source opens; else print a line for each camera whose source does not.

    A camera that sends nothing on purpose may be switched off: its source is not tried. `check` is called while sources
    open, and raises to give up.
    """
    now_s = time.time()
    real = [each for each in settings if each.source.kind in REAL_KINDS]
    paused = {each.camera_id for each in real if is_paused(layout.spool / each.camera_id, each.encoding, each.fps)}
    in_hours = [each for each in settings if each.in_hours(now_s)]
    cameras = {each.camera_id: each.source for each in in_hours if each.camera_id not in paused}
    if resting := len(settings) - len(in_hours):
        print_line(f"{resting} of {len(settings)} cameras are outside their schedule: their sources are not tried")
    if still := len(in_hours) - len(cameras):
        print_line(f"{still} of {len(settings)} cameras are paused by a command: their sources are not tried")
    tried = try_sources(cameras, one_deadline=True, check=check)
    failed = {name: trial.error for name, trial in tried.items() if trial.error is not None}
    if not failed:
        return
    name, error = next(iter(failed.items()))
    if len(failed) == len(settings):
        others = f" {len(failed) - 1} other cameras do not answer either." if len(failed) > 1 else ""
        raise SourceError(f"{name}: {remedied(error, 'Start the camera, or correct its address.')}{others}")
    for name, error in list(failed.items())[:MOST_NAMED]:
        print_line(f"{name}: {error}; the camera is degraded and retries")
    if len(failed) > MOST_NAMED:
        print_line(f"and {len(failed) - MOST_NAMED} more of {len(cameras)} cameras are degraded and retry")


def console_places(settings: UpSettings) -> dict[str, str]:
    """Return where settings put the console's own database and files, for programs in any working folder.

    A text env:NAME stays: the URL in that variable may hold a password, and these places are written to a file.
    """
    store, files = settings.console.store, settings.console.kept_files
    if store and not store.startswith(PREFIX):
        url = database_url(store)
        file = url.database or ":memory:"
        if url.get_backend_name() == "sqlite" and file != ":memory:" and not file.startswith("file:"):
            store = url.set(database=str(Path(file).resolve())).render_as_string(hide_password=False)
    if files and "://" not in files:
        files = str(Path(files).resolve())
    return {"store": store, "kept_files": files}


def forget_former(layout: Layout, cameras: Sequence[CameraId], store_url: str, print_line: PrintLine) -> None:
    """Forget the cameras of the former run that this one lacks: otherwise they would stay listed as not well.

    `store_url` is that of the console's own database. If it cannot be used, they stay listed, and a line is printed.
    """
    former = {*scenario_cameras(layout), *layout.added_cameras}.difference(cameras)
    if not former:
        return
    try:
        with opened_console_database(store_url) as store:
            store.forget(*sorted(former))
    except UserError as error:
        print_line(f"cameras of the earlier scenario stay listed: {error}")


def note_commands(layout: Layout, cameras: Sequence[CameraSettings], print_line: PrintLine) -> None:
    """Print how many cameras obey remembered commands that differ from the settings of this run."""
    found = []
    for camera in cameras:
        state = read_command_state(layout.spool / camera.camera_id, camera.encoding, camera.fps).state
        if overridden(camera.encoding, camera.fps, state):
            found.append(camera.camera_id)
    if found:
        print_line(
            f"{len(found)} of {len(cameras)} cameras obey earlier commands instead of the settings of this run, "
            f"the first is {found[0]}. `pointillist camera settings {found[0]} {layout.state_option}` prints them, "
            "and discards them with --reset."
        )


def note_unchecked_probes(settings: UpSettings, cameras: Sequence[CameraSettings], print_line: PrintLine) -> None:
    """Print a line when cameras send probes and the bundle cannot check them: they cost bytes and gain nothing."""
    probing = any(camera.probe_share > 0 for camera in cameras)
    folder = bundle_folder(settings)
    if probing and not checks_for_triggers(folder):
        print_line(
            f"the bundle {folder} has no [strip] table: no frame is checked for triggers, but cameras send whole "
            f"frames for this check. Make the table with `pointillist bundle calibrate {shlex.quote(str(folder))} "
            "--images PICTURES`, or give --probe-share 0."
        )


def note_missing_network(settings: UpSettings, cameras: Sequence[CameraSettings], print_line: PrintLine) -> None:
    """Print a line when a small shipped network classifies real cameras, because the general one was not made."""
    real = settings.without_cameras or any(camera.source.kind in REAL_KINDS for camera in cameras)
    if settings.bundle is None and real:
        print_line(
            f"the bundle {GENERAL} is missing: expected it for real cameras, got {bundle_folder(settings).name}, whose "
            "classes do not fit them. Run `pointillist bundle create --imagenet` and start again, or give --bundle."
        )


def fleet_parts(settings: UpSettings, cameras: int) -> int:
    """Return the number of processes for this many simulated cameras, 0 for none; ConfigError if some would have none.

    A process uses one core at most, and costs about 100 MB and some seconds of CPU time before its first camera.
    """
    if settings.cameras_file is not None:
        return 1
    if cameras == 0 and settings.fleets is None:
        return 0
    if settings.fleets is None:
        return max(1, min(cameras // CAMERAS_OF_A_PROCESS, len(os.sched_getaffinity(0)), MAX_PARTS))
    if settings.fleets > cameras:
        raise ConfigError(f"fleets: expected at most {cameras}, one for each camera, got {settings.fleets}. Lower it.")
    return settings.fleets
