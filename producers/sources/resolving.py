"""The device behind a link, as a source's opening resolves it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import SecretStr

from producers.sources.settings import SourceSettings

_DEVICES: Final = "/dev/"


def resolve_settings(settings: SourceSettings) -> SourceSettings:
    """Return the settings for one opening: a link such as `/dev/v4l/by-id/…` becomes its device, which FFmpeg knows by
    its name alone."""
    address = "" if settings.address is None else settings.address.get_secret_value()
    if not address.startswith(_DEVICES):
        return settings
    return settings.model_copy(update={"address": SecretStr(str(Path(address).resolve()))})
