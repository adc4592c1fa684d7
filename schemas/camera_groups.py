"""Groups of cameras by name: `site/camera`, `site/*`, or `site/beginning*`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from schemas.errors import ConfigError
from schemas.identity import DEFAULT_SITE, SITE_NAME

_GROUP: Final = re.compile(rf"(?=.{{3,64}}\Z){SITE_NAME.pattern}/([a-z0-9][a-z0-9_.-]{{0,62}})?\*?")

T = TypeVar("T")


def parse_group(text: object) -> str:
    """Return a group of cameras. Raises ConfigError for another form."""
    if not isinstance(text, str) or not _GROUP.fullmatch(text) or text.endswith("/"):
        raise ConfigError(
            f"cameras: expected site/camera, or site/* or site/beginning*, got {str(text)[:80]!r}. Correct it."
        )
    return text


def parse_typed_group(text: str) -> str:
    """Return a typed group of cameras whose site may be missing. Raises ConfigError for another form."""
    return parse_group(text if "/" in text else f"{DEFAULT_SITE}/{text}")


def most_specific(camera: str, by_group: Mapping[str, T]) -> T | None:
    """Return the value of the most specific group that holds a camera; None without any."""
    found = by_group.get(camera)
    site_end = camera.find("/")
    for end in range(len(camera), site_end, -1):
        if found is not None:
            break
        found = by_group.get(f"{camera[:end]}*")
    return found
