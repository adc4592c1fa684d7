"""`pointillist camera discover`: ONVIF cameras of this network, and their streams."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli import needs_extra
from infra.cli.access import text_of
from infra.cli.camera import camera_app
from infra.cli.terminal import Json, print_json
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from infra.cameras.onvif import CameraDescription
    from infra.cli.terminal import Console

_STREAM: Final = re.compile(r"(rtsp|http)s?://(?!.*(\$\{|\{index))", re.IGNORECASE | re.DOTALL)
"""The address of a stream without a placeholder."""
_WARNING: Final = "# Each camera below gets the login. Any device may answer: remove those that are not yours.\n"


@camera_app.command()
def discover(
    seconds: Annotated[float, typer.Option(help="Seconds to wait for answers of cameras.", min=0.1, max=3600)] = 4.0,
    login: Annotated[
        Path | None,
        typer.Option(
            help="File with user:password, with which each camera is queried for its streams; - is standard input. "
            "Cameras receive only a digest of it."
        ),
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address of a camera: query only this one. Can be given again.")
    ] = None,
    site: Annotated[str, typer.Option(help="Site of the cameras in the output of --yaml.")] = "site",
    yaml: Annotated[
        bool, typer.Option("--yaml", help="Print a cameras.yaml with the first stream of each camera.")
    ] = False,
    json: Json = False,
) -> None:
    """Find ONVIF cameras by WS-Discovery.

    Exit status 1 when no camera has answered.
    """
    import asyncio

    from infra.cameras.onvif import CameraDescription, check_site, describe_all, probe_networks
    from infra.cli.terminal import Console

    check_site(site)
    if yaml and login is None:
        raise ConfigError(
            "--login is missing: a camera lists its streams only after a login. Give --login FILE with --yaml."
        )
    if yaml and str(login) == "-":
        raise ConfigError("--login: expected a file, which cameras.yaml names, got standard input. Give a file.")
    known = _login(login) if login is not None else None
    with needs_extra("onvif"):
        answers = [answer for device in probe_networks(seconds) if (answer := device.at(host or ())) is not None]
        described = (
            asyncio.run(describe_all(answers, *known)) if known else [CameraDescription(answer) for answer in answers]
        )
    console = Console(soft_wrap=True, highlight=False)
    if json:
        print_json([_summary(camera) for camera in described])
    elif yaml:
        assert login is not None
        console.print(_cameras_yaml(described, site, login.resolve()), end="", markup=False)
    else:
        _print_cameras(console, described, asked=known is not None)
    raise typer.Exit(0 if described else 1)


def _login(file: Path) -> tuple[str, str]:
    """Return user and password. Raises SourceError for a file, SecretError for standard input without them."""
    from producers.sources.login import LoginPlace
    from schemas.transport.access import Login

    if str(file) != "-":
        return LoginPlace(file=file).read()
    login = Login.parse(text_of(file))
    return login.user, login.password.get_secret_value()


def _summary(camera: CameraDescription) -> dict[str, Any]:
    answer = camera.answer
    return {
        "address": answer.address,
        "name": answer.name,
        "hardware": answer.hardware,
        "model": camera.model,
        "problem": camera.problem,
        "streams": [vars(stream) for stream in camera.streams],
    }


def _print_cameras(console: Console, described: list[CameraDescription], asked: bool) -> None:
    if not described:
        console.print("no camera has answered: multicast reaches this network only, and some cameras have ONVIF off")
    for camera in described:
        answer = camera.answer
        name = camera.model or answer.hardware
        console.print(f"{answer.address}  {answer.name}{f', {name}' if name else ''}", markup=False)
        for stream in camera.streams:
            size = f"{stream.size[0]} x {stream.size[1]}" if stream.size else "unknown size"
            rate = f", up to {stream.fps:g} frames/s" if stream.fps else ""
            console.print(f"  {stream.profile}: {stream.codec} {size}{rate}\n    {stream.uri}", markup=False)
        if camera.problem:
            console.print(f"  no streams: {camera.problem}", markup=False)
    if described and not asked:
        console.print("their streams: --login FILE with user:password")


def _cameras_yaml(described: list[CameraDescription], site: str, login: Path) -> str:
    """Return a file of cameras; those without a stream that can be listed are comments.

    Each camera that is listed names the login: in the defaults, it would also go to cameras that are added later.
    """
    import yaml

    from infra.cameras.onvif import camera_name

    taken: set[str] = set()
    cameras: list[dict[str, Any]] = []
    comments: list[str] = []
    for camera in described:
        if (reason := _unlisted(camera)) is not None:
            comments.append(f"# {camera.answer.address}: {reason}\n")
        else:
            source = {"address": camera.streams[0].uri, "login": {"file": str(login)}}
            cameras.append({"name": camera_name(camera, taken, site), "source": source})
    document = {"site": site, "enrolments": "enrolments", "cameras": cameras}
    return _WARNING + yaml.safe_dump(document, sort_keys=False) + "".join(comments)


def _unlisted(camera: CameraDescription) -> str | None:
    """Return the reason for which a camera is not in the file, without line breaks; None if it is in the file.

    A stranger has chosen the address. A path would name a file of this machine, and `${VARIABLE}` would send an
    environment variable to the stranger's host. The file is rejected if an address has a login besides `login`.
    """
    from infra.cameras.onvif import seen
    from producers.sources.login import has_login

    if not camera.streams:
        return camera.problem or "no stream"
    address = camera.streams[0].uri
    if _STREAM.match(address) and not has_login(address):
        return None
    return f"expected rtsp://… or http://… without a login, ${{ and {{index, got {seen(address)}"
