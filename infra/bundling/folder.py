"""The folder of a new bundle: it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import BundleError, ConfigError
from schemas.runtime.disk import enough_disk


@contextmanager
def replacing_folder(place: Path) -> Iterator[Path]:
    """Provide the path of a folder to make, which takes the place of `place` if the block ends without an error."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        parent = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
    except OSError as error:
        raise ConfigError(
            f"--out: expected a folder that can be made, got {place}: {error.strerror}. Choose another folder."
        ) from None
    try:
        fresh = parent / place.name
        yield fresh
        if place.exists():
            place.rename(parent / f"{place.name}.replaced")
        fresh.rename(place)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """Provide a folder that becomes `out` when the block ends without an error, and is deleted otherwise.

    An empty `out` may be a link, a mount or the current folder, which no other folder can replace. It gets the files,
    `model.toml` last: until then it is no bundle. Raises StateError for a full disk, else ConfigError.
    """
    there = os.path.lexists(out)
    if there and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"--out: expected a folder that is empty or does not exist yet, got {out}. Choose another folder."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out if there else out.parent))
    except OSError as error:
        raise ConfigError(
            f"--out: expected a folder that can be made, got {out}: {error.strerror}. Choose another folder."
        ) from None
    try:
        with enough_disk(out):
            yield fresh
        if there:
            for file in sorted(fresh.iterdir(), key=lambda each: each.name == "model.toml"):
                file.rename(out / file.name)
        else:
            fresh.chmod(0o755)
            fresh.rename(out)
    except BundleError as error:
        raise BundleError(str(error).replace(f"bundle {fresh}: ", "")) from None
    except OSError as error:
        raise ConfigError(
            f"--out: expected a writable folder, got {out}: {error.strerror or error}. Choose another folder."
        ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
