"""Names and versions of bundles, as verdicts and folders carry them."""

from __future__ import annotations

import re
from typing import Final

from processors.bundle.model_toml import NAME
from schemas.errors import ConfigError

_LONGEST: Final = 64
"""The limit of `model.toml`."""


def check_name(option: str, name: str) -> None:
    """Raise ConfigError unless `name` may be the name or the version of a bundle."""
    if len(name) > _LONGEST or not re.fullmatch(NAME, name):
        raise ConfigError(
            f"{option}: expected at most {_LONGEST} letters, digits, `.`, `_` and `-`, got {name[:80]!r}. Choose "
            "another one."
        )
