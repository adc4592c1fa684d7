"""`pointillist camera test URL`: the properties of a stream on one screen, with a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.camera import camera_app, stream_address
from infra.cli.terminal import Json, print_json
from infra.settings.command import role_command
from schemas.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from infra.cli.terminal import Console
    from producers.camera.role_settings import CameraTestSettings
    from producers.sources.examine import StreamReport
    from producers.sources.settings import SourceSettings, StreamSettings

_SHOWN_COLUMNS = 56
_UPPER_HALF = "▀"


@role_command(
    camera_app, "camera-test", "cameras", "seconds", "source.login.file", "source.hang_s", "source.rotate",
    "source.privacy", "source.region", "source.hardware", strip="source", name="test",
)  # fmt: skip
def try_camera(
    settings: CameraTestSettings,
    url: Annotated[
        str | None, typer.Argument(help="RTSP or HTTP URL, /dev/video0 or a video file; with --cameras, SITE/CAMERA.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="File for the last picture: .png or .jpg.")] = None,
    show: Annotated[
        bool | None,
        typer.Option(
            "--show/--no-show", help="Show the picture in the terminal. Default: only if the output is a terminal."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Open a camera's stream, watch it for some seconds, and print its properties. Nothing is sent anywhere.

    Exit status 2, with the reason, when the stream cannot be opened.
    """
    from infra.cli.terminal import Console

    if picture is not None and picture.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(
            f"--picture: expected a name that ends in .png, .jpg or .jpeg, got {picture.name!r}. Correct it."
        )
    if picture is not None and (picture.is_dir() or not picture.absolute().parent.is_dir()):
        raise ConfigError(f"--picture: expected a file in an existing folder, got {picture}. Choose another file.")
    from producers.sources.examine import examine
    from producers.sources.trial import remedied

    place = stream_address(url, settings.address)
    source = _listed(settings.cameras, place) if settings.cameras is not None else _source(place, settings.source)
    try:
        found = examine(source, settings.seconds)
    except SourceError as error:
        raise remedied(error) from None
    if json:
        print_json(found.summary())
    else:
        console = Console(soft_wrap=True, highlight=False)
        _print_result(console, found)
        if show or (show is None and sys.stdout.isatty()):
            _show(console, found)
    if picture is not None:
        _save(found, picture)
        if not json:
            console.print(f"picture saved to {picture}", markup=False)


def _source(place: str, stream: StreamSettings) -> SourceSettings:
    from producers.camera.role_settings import is_stream, source_at

    if not is_stream(place):
        if not Path(place).exists():
            raise ConfigError(
                f"{place[:80]} is missing: expected a URL with rtsp:// or http://, a device or an existing file. "
                "Correct it."
            )
        place = _file_url(Path(place))
    return source_at(place, stream)


def _listed(file: Path, name: str) -> SourceSettings:
    from pydantic import SecretStr

    from producers.fleet.camera_file import load_camera_file
    from schemas.identity import camera_id

    cameras = load_camera_file(file)
    found = cameras.get(camera_id(name))
    if found is None:
        known = ", ".join(list(cameras)[:8])
        raise ConfigError(
            f"{file}: expected one of {known}{', …' if len(cameras) > 8 else ''}, got {name}. Correct the name."
        )
    source = found.settings.source
    if source.file is None:
        return source
    return source.model_copy(update={"kind": "url", "file": None, "address": SecretStr(_file_url(source.file))})


def _file_url(file: Path) -> str:
    """Return the URL of a file in FFmpeg's form: not percent-encoded."""
    return f"file://{file.resolve()}"


def _print_result(console: Console, found: StreamReport) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for what, value in _rows(found):
        table.add_row(what, Text(value))
    console.print(table)


def _rows(found: StreamReport) -> list[tuple[str, str]]:
    """Return the properties on one screen: at most 80 columns."""
    width, height = found.size
    rate = (
        f"{found.fps:.1f} {'measured' if found.live else 'recorded'}" if found.fps is not None else "too few to measure"
    )
    kind = "live" if found.live else "a recording, which waits for its reader"
    if found.snapshot:
        kind = "a still picture, fetched again for each frame"
    if found.announced_fps:
        rate += f", {found.announced_fps:.1f} announced"
    rows = [
        ("address", found.address),
        ("codec", " ".join(filter(None, (found.codec, found.profile, "by hardware" if found.hardware else "")))),
        ("size", f"{width} x {height}"),
        ("frames/s", rate),
        ("bit rate", f"{found.bits_per_s / 1e6:.2f} Mbit/s" if found.bits_per_s is not None else "unknown"),
        ("key frames", f"{found.key_frames} in {found.frames} frames"),
        ("kind", kind),
        ("first picture", f"after {found.first_s:.1f} s, of which {found.opened_s:.1f} s to open"),
        ("clock", _clock(found)),
        ("delay", f"{found.delay_ms / 1000:.2f} s by that clock" if found.delay_ms is not None else "unknown"),
    ]
    if found.sent_size is not None and found.sent_size != found.size:
        rows.insert(3, ("as sent", f"{found.sent_size[0]} x {found.sent_size[1]}"))
    if found.others:
        rows.append(("other streams", ", ".join(found.others)))
    if found.problem:
        rows.append(("ended early", found.problem))
    return rows


def _clock(found: StreamReport) -> str:
    if found.skew_ms is None:
        return "its own: none sent (no RTCP report); frames have the time of their arrival"
    if not found.believed:
        return f"its own is {abs(found.skew_ms) / 1000:.0f} s off ours: not used, arrival counts. Set its NTP"
    return f"its own by RTCP, {found.clock_after_s or 0:.1f} s after the first picture"


def _show(console: Console, found: StreamReport) -> None:
    """Print the picture as coloured half blocks, two pixels in a place."""
    from PIL import Image
    from rich.text import Text

    if found.picture is None:
        return
    picture = found.picture if found.picture.shape[2] == 3 else found.picture.repeat(3, axis=2)
    columns = min(_SHOWN_COLUMNS, console.width)
    rows = max(2, round(columns * picture.shape[0] / picture.shape[1]) // 2 * 2)
    small = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BOX)
    for row in range(0, rows, 2):
        line = Text()
        for column in range(columns):
            upper, lower = (small.getpixel((column, row + half)) for half in (0, 1))
            line.append(_UPPER_HALF, style=f"rgb({_rgb(upper)}) on rgb({_rgb(lower)})")
        console.print(line)


def _rgb(pixel: object) -> str:
    assert isinstance(pixel, tuple)
    return ",".join(str(int(level)) for level in pixel)


def _save(found: StreamReport, file: Path) -> None:
    from PIL import Image

    from infra.state_folder import writing

    if found.picture is None:
        return
    picture = found.picture if found.picture.shape[2] == 3 else found.picture[..., 0]
    with writing("--picture", file):
        Image.fromarray(picture).save(file)
