"""Files that are replaced in one step, for every role."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

UNFINISHED: Final = ".new"
"""How the names of what a kill left unfinished end; they begin with a dot. Whoever owns the folder may remove them."""


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A place beside `path` to write to, which takes its name when the block ends without an error.

    Who reads `path` meanwhile, or after a kill, finds the old file or the new one, never a part; after an error the old
    one stays. Writers in several processes and threads do not disturb each other. A file that is there keeps its mode;
    with `private` only the owner may read it, from the first byte on. The folder must be there. Nothing is forced to
    the disk: what a power failure leaves is the file system's affair. Raises OSError.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}{UNFINISHED}")
    try:
        # Made here and not by who writes, so that there is no moment in which others may read it.
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666))
        if not private and path.exists():
            shutil.copymode(path, fresh)
        yield fresh
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
