"""The settings that all pixel sources share: rotation, privacy, and references to logins."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from benchmarks.harness.rtsp import RtspServer
from producers.sources.framing import Framing, blacken, turn
from producers.sources.login import LoginPlace, with_login
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from schemas.errors import SourceError

share = st.floats(0, 1, allow_nan=False)


@given(height=st.integers(1, 40), width=st.integers(1, 40), x=share, y=share, right=share, bottom=share)
def test_the_pixels_under_a_privacy_rectangle_and_at_most_three_beside_it_are_black(
    height: int, width: int, x: float, y: float, right: float, bottom: float
) -> None:
    x, right = sorted((x, right))
    y, bottom = sorted((y, bottom))
    picture = np.full((height, width, 3), 200, np.uint8)
    black = (blacken(picture, ((x, y, right - x, bottom - y),)) == 0).all(axis=2)
    has_pixels = min((right - x) * width, (bottom - y) * height) > 1e-5

    def overlap(row: int, column: int, around: int) -> float:
        """Return the smaller side of the rectangle's part in a square around a pixel; negative outside of it."""
        return min(
            min(right * width, column + 1 + around) - max(x * width, column - around),
            min(bottom * height, row + 1 + around) - max(y * height, row - around),
        )

    for row, column in np.ndindex(height, width):
        if overlap(row, column, 0) > 1e-5 and has_pixels:
            assert black[row, column]
        elif overlap(row, column, 3) < -1e-5:
            assert not black[row, column]
    assert (picture == 200).all()  # the pictures of a data set are shared and must not change


@given(degrees=st.sampled_from([0, 90, 180, 270]), height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_picture_is_rotated_clockwise(degrees: int, height: int, width: int) -> None:
    picture = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)
    turned = turn(picture, degrees)
    for row, column in np.ndindex(height, width):
        places = {
            0: (row, column),
            90: (column, height - 1 - row),
            180: (height - 1 - row, width - 1 - column),
            270: (width - 1 - column, row),
        }
        assert turned[places[degrees]] == picture[row, column]


def test_privacy_applies_to_the_rotated_picture_before_resizing() -> None:
    picture = np.full((8, 4, 3), 255, np.uint8)
    framed = Framing(rotate=90, privacy=((0, 0, 0.5, 1),), size=(4, 2), channels=1)(picture)
    assert framed[..., 0].tolist() == [[0, 0, 128, 255], [0, 0, 128, 255]]  # one column next to the region is black


@given(user=st.text(min_size=1, max_size=9), password=st.text(max_size=9))
def test_a_login_in_an_address_can_be_parsed_again(user: str, password: str) -> None:
    parts = urlsplit(with_login("rtsp://10.0.0.1:554/live?a=b", user, password))
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (user, password)
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("10.0.0.1", 554, "/live", "a=b")


def test_a_login_is_read_at_each_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = LoginPlace(file=tmp_path / "login")
    with pytest.raises(SourceError, match=r"expected user:password in the file .*login: No such file"):
        place.read()
    (tmp_path / "login").write_text("viewer:a:b\n")
    assert place.read() == ("viewer", "a:b")
    (tmp_path / "login").write_text("hidden")
    with pytest.raises(SourceError, match="got another form") as caught:
        place.read()
    assert "hidden" not in str(caught.value)
    with pytest.raises(SourceError, match="the variable GATE, got none"):
        LoginPlace(variable="GATE").read()
    monkeypatch.setenv("GATE", "viewer:x")
    assert LoginPlace(variable="GATE").read() == ("viewer", "x")


def test_an_rtsp_camera_accepts_a_login_with_special_characters_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("us er:p@s/s:w#ö?%41\n")
    with RtspServer(login="us er:p@s/s:w#ö?%41") as server:
        address = SecretStr(server.address("live", ""))
        source = open_source(SourceSettings(kind="url", address=address, login=LoginPlace(file=tmp_path / "login")))
        assert source.read() is not None
        source.close()
        (tmp_path / "login").write_text("us er:other")
        with pytest.raises(SourceError, match="401") as caught:
            open_source(SourceSettings(kind="url", address=address, login=LoginPlace(file=tmp_path / "login")))
        assert caught.value.reason.startswith("Server returned 401")
        assert "other" not in str(caught.value)


def test_missing_hardware_is_rejected_and_auto_falls_back_to_software(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        SourceSettings(kind="video", file=tmp_path / "x.mp4", hardware="CUDA 0")
    with pytest.raises(SourceError, match=r"expected hardware that decodes \(.*\), got abacus"):
        open_source(SourceSettings(kind="video", file=tmp_path / "x.mp4", hardware="abacus"))
    with pytest.raises(SourceError, match="expected hardware that decodes, got a machine without cuda:97"):
        open_source(SourceSettings(kind="video", file=tmp_path / "x.mp4", hardware="cuda:97"))
    with RtspServer() as server:
        source = open_source(SourceSettings(kind="url", address=SecretStr(server.address()), hardware="auto"))
        assert source.read() is not None
        source.close()
