"""Options of a camera's source and of its schedule, for commands that take one camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import ConfigError
from schemas.messages.frame_size import over_size

Login = Annotated[Path | None, typer.Option(help="A file with user:password.")]
Hang = Annotated[float, typer.Option(help="Seconds without a picture after which the source counts as hung.", min=0.1)]
Opening = Annotated[
    float | None, typer.Option("--open", help="Seconds to connect, and again to find the video; 10 by itself.", min=0.1)
]
Hardware = Annotated[str, typer.Option(help="What decodes: none, auto, or a device such as cuda.")]
Clock = Annotated[
    str, typer.Option(help="When a frame was captured: auto (the stream's own clock where it has one) or arrival.")
]
Rotate = Annotated[int, typer.Option(help="Degrees to turn it clockwise before all else: 0, 90, 180 or 270.")]
Privacy = Annotated[
    list[str] | None,
    typer.Option(help="X,Y,WIDTH,HEIGHT that is black, as shares of the turned picture's sides; may be repeated."),
]
Region = Annotated[str | None, typer.Option(help="X,Y,WIDTH,HEIGHT to cut out, in pixels of the turned picture.")]
Size = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT to send; else the camera's own.")]
Grey = Annotated[bool, typer.Option("--grey", help="Send it in grey.")]
Loop = Annotated[bool, typer.Option("--loop", help="Of a file: begin again at its end.")]
Hours = Annotated[
    list[str] | None,
    typer.Option("--schedule", help="Hours in which it sends, as 'mon-fri 07:00-19:00'; may be repeated."),
]
Zone = Annotated[
    str | None, typer.Option(help="Of --schedule: the time zone, as Europe/Berlin; else that of this machine.")
]
Motion = Annotated[bool, typer.Option("--motion", help="Send only while something moves, and a heartbeat.")]
Heartbeat = Annotated[
    float | None, typer.Option(help="Of --motion: seconds after which a frame is sent all the same; 10 by itself.")
]


def source_of(
    place: str,
    *,
    login: Path | None,
    hang: float,
    opening: float | None,
    hardware: str,
    clock: str,
    rotate: int,
    privacy: Sequence[str] | None,
    region: str | None,
    size: str | None,
    grey: bool,
    loop: bool,
) -> dict[str, Any]:
    """Return the key `source` of a URL, a device or a file, from the given options; parsing checks it further."""
    source: dict[str, Any] = {"kind": "video", "file": place}
    if "://" in place or place.startswith("/dev/"):
        source = {"kind": "url", "address": place, "hang_s": hang}
    said: dict[str, Any] = {
        "login": {"file": login} if login is not None else None,
        "open_s": opening,
        "hardware": hardware if hardware != "none" else None,
        "clock": clock if clock != "auto" else None,
        "rotate": rotate or None,
        "privacy": [_shares(each) for each in privacy] if privacy else None,
        "region": numbers(region, ",", 4, "a region as X,Y,WIDTH,HEIGHT"),
        "size": numbers(size, "x", 2, "a size as WIDTHxHEIGHT"),
        "channels": 1 if grey else None,
        "loop": loop or None,
    }
    return source | {name: value for name, value in said.items() if value is not None}


def sending_of(hours: Sequence[str] | None, zone: str | None, motion: bool, heartbeat: float | None) -> dict[str, Any]:
    """Return the keys `schedule` and `motion`, if options set them."""
    if zone is not None and not hours:
        raise ConfigError("--zone: expected --schedule beside it")
    if heartbeat is not None and not motion:
        raise ConfigError("--heartbeat: expected --motion beside it")
    found: dict[str, Any] = {}
    if hours:
        found["schedule"] = {"hours": list(hours)} | ({"zone": zone} if zone is not None else {})
    if motion:
        found["motion"] = {"heartbeat_s": heartbeat} if heartbeat is not None else {}
    return found


def numbers(text: str | None, separator: str, count: int, form: str) -> list[int] | None:
    """Read `count` whole numbers; `ConfigError` names the form."""
    if text is None:
        return None
    parts = text.lower().split(separator)
    if len(parts) != count or not all(part.isdigit() for part in parts):
        raise ConfigError(f"expected {form}, got {text!r}")
    return [int(part) for part in parts]


def check_size(size: str | None, most_pixels: int) -> None:
    """Raise `ConfigError` for a --size of more pixels than the processors take of a frame."""
    wanted = numbers(size, "x", 2, "a size as WIDTHxHEIGHT")
    if wanted is None:
        return
    width, height = wanted
    if width * height > most_pixels:
        raise ConfigError(f"--size: {over_size(width, height, most_pixels)}")


def _shares(text: str) -> list[float]:
    try:
        x, y, width, height = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--privacy: expected X,Y,WIDTH,HEIGHT as shares from 0 to 1, got {text!r}") from None
    return [x, y, width, height]
