"""Addresses that are links to devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from producers.sources.settings import SourceSettings
from producers.sources.trial import try_source
from schemas.errors import SourceError


def test_a_link_to_a_device_opens_as_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, object]] = []

    def record(address: str, **options: object) -> None:
        opened.append((address, options["format"]))
        raise OSError

    monkeypatch.setattr("producers.sources.url.av.open", record)
    monkeypatch.setattr("producers.sources.resolving._DEVICES", f"{tmp_path}/")
    link = tmp_path / "usb-camera"
    link.symlink_to("/dev/video99")
    with pytest.raises(SourceError):
        try_source(SourceSettings(kind="url", address=SecretStr(str(link))))
    assert opened == [("/dev/video99", "v4l2")]
