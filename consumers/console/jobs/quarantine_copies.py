"""Copies of the quarantine for repairs, each sealed for one job alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from consumers.console.data.quarantined import copy_flagged, newest_flagged
from consumers.database.recorded import RecorderDatabase
from schemas.errors import ConfigError
from schemas.keys.keys import KeyRing

FOLDER: Final = "quarantine"
_SECRET: Final = "POINTILLIST_ROLE_SECRET"


class QuarantineCopies:
    """Copies quarantined frames into the folders of jobs. A job gets a secret that opens its own copy and no more."""

    def __init__(self, recorded: RecorderDatabase, url: str, keys: KeyRing) -> None:
        """`recorded` lists the frames, `url` has their files, and `keys` open them."""
        self._recorded, self._url, self._keys = recorded, url, keys

    def copy(self, job_id: str, camera: str, place: Path, stopped: Callable[[], bool]) -> None:
        """Copy the frames of one camera into a job's folder `place`, of all cameras if `camera` is empty.

        The copy is whole or absent. An earlier one stays: a resumed repair learns from the same frames. Ends early if
        `stopped` returns true. Raises ConfigError if there are no frames, SecretError without the key to pictures.
        """
        held, part = place / FOLDER, place / f"{FOLDER}.part"
        if held.is_dir():
            return
        shutil.rmtree(part, ignore_errors=True)
        box = KeyRing(self._keys.of_job(job_id)).previews
        names = self._recorded.read(newest_flagged, camera)
        copied = copy_flagged(names, self._url, self._keys, part, box, stopped)
        if stopped():
            return
        if not copied:
            raise ConfigError(
                f"quarantine: expected frames of {camera or 'any camera'} that this console opens, got none"
            )
        part.rename(held)

    def variables(self, job_id: str) -> Mapping[str, str]:
        """Return the environment variables of a job that opens its copy."""
        return {_SECRET: self._keys.of_job(job_id).export()}
