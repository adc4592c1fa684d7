"""A state folder that other users of the machine cannot read."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from schemas.errors import StateError

_OWNER: Final = 0o700
_MARKS: Final = frozenset(
    (
        "lock", "identities.lock", "ports.json", "fleet.secret", "pki", "enrolments", "users", "tokens", "signer.key",
        "decider.key", "trusted-signers", "generations.json", "camera-rates.json", "pointillist.sqlite",
        "console.sqlite", "quarantine", "spool", "mosquitto", "kafka", "kafka-1", "kafka-2", "kafka-3",
    )
)  # fmt: skip
"""Entries that a run, or a command before the first run, leaves in a state folder. Folders of other programs rarely
have one."""


def check_owner(folder: Path) -> None:
    """Raise StateError if root uses the folder of another user; a missing folder is accepted.

    That user, such as a service's, could not read the private files that root writes.
    """
    owner = folder.stat().st_uid if folder.exists() else 0
    if os.geteuid() != 0 or owner == 0:
        return
    try:
        name = pwd.getpwuid(owner).pw_name
        remedy = f"Run `runuser -u {name} -- pointillist …`."
    except KeyError:
        name, remedy = f"user {owner}", f"Run it as user {owner}."
    raise StateError(f"--state: expected a folder of root, got {folder} of {name}. {remedy}")


@contextmanager
def private_folder(folder: Path) -> Iterator[None]:
    """Close `folder` to other users, even one that was open before, and every file made in the block.

    The files in it are pictures, verdicts, logs and keys. StateError if the folder cannot be made or closed, if all
    files in it are of something else, or as `check_owner` does. Entries that are closed already may have another owner,
    as `lost+found` of a disk has.
    """
    check_owner(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_content(folder)
        folder.chmod(_OWNER)
        for entry in folder.iterdir():
            with suppress(FileNotFoundError):  # a command that replaces a file removes its temporary one
                mode = stat.S_IMODE(entry.lstat().st_mode)
                if not entry.is_symlink() and mode & ~_OWNER:
                    entry.chmod(mode & _OWNER)
    except OSError as error:
        raise StateError(f"state: expected a writable folder, got {folder}: {error}. Choose another folder.") from error
    before = os.umask(0o777 & ~_OWNER)
    try:
        yield
    finally:
        os.umask(before)


def _check_content(folder: Path) -> None:
    """Raise StateError if the folder holds files, and none that a state folder has.

    It may be the home of a service's user, or a disk of its own, and disks may be mounted in it: hidden files,
    `lost+found` and mount points do not count.
    """
    names = {
        each.name
        for each in folder.iterdir()
        if not each.name.startswith(".") and each.name != "lost+found" and not each.is_mount()
    }
    if names and names.isdisjoint(_MARKS):
        raise StateError(
            f"--state: expected an empty folder or the state folder of a system, got {folder} with {min(names)}. "
            "Choose another folder: this one would be closed to other users."
        )
