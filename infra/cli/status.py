"""`pointillist status`, `cameras`, `logs` and `down`: inspection and shutdown of a running system."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import app
from infra.cli.access import DEFAULT_STATE, existing_layout
from infra.cli.rows import print_rows
from infra.cli.terminal import Console, Json, print_json, print_line
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from infra.state_folder import Layout
    from infra.up.system_state import CameraState

State = Annotated[Path, typer.Option(help="State folder of the system.")]
MOST_NAMED = 20
_RECOGNISED = 4096
"""Last printed bytes of a log by which `logs --follow` finds its place after a cut."""
UNWELL = 1
"""Exit status when a role or a camera is not well, or the system has not ended in time."""


@app.command()
def status(state: State = DEFAULT_STATE, json: Json = False) -> None:
    """Print roles, firing rules, cameras by state, broken cameras with the reason, and the addresses of all pages.

    Exit status 1 when a role or a camera needs attention, 2 when no system runs.
    """
    from consumers.console.access.owner import owner_link
    from infra.up.system_line import rules_of
    from infra.up.system_state import PAGES, camera_states, is_supervised, page_addresses, role_states

    layout = existing_layout(state)
    roles, cameras = role_states(layout), camera_states(layout)
    firing = rules_of(roles).firing
    supervised = is_supervised(layout)
    counted, addresses = Counter(each.state for each in cameras), page_addresses(roles)
    broken = [each for each in cameras if each.broken]
    well = supervised and not broken and all(role.state == "up" for role in roles)
    if json:
        document = {
            "supervised": supervised, "roles": [asdict(role) for role in roles],
            "rules": [asdict(each) for each in firing], "cameras": dict(counted),
            "broken": [asdict(each) for each in broken], "addresses": addresses,
        }  # fmt: skip
        print_json(document)
        raise typer.Exit(0 if well else UNWELL)
    if not supervised:
        print_line(
            "`up` has ended without stopping its roles, and nothing restarts them. Start it again with the same "
            f"options: pointillist up {layout.state_option} …"
        )
    lines = [
        (
            role.name, role.state, role.listen or "", str(role.pid or ""),
            "" if role.backlog is None else str(role.backlog), str(role.restarts),
        )
        for role in roles
    ]  # fmt: skip
    print_rows(Console(highlight=False), ("role", "state", "listens on", "pid", "waiting", "restarts"), lines)
    for role in roles:
        if not role.is_well:
            print_line(f"{role.sentence}: {role.detail}")
    for rule in firing[:MOST_NAMED]:
        print_line(f"{rule.severity}: {rule.summary} ({rule.name})")
    if len(firing) > MOST_NAMED:
        print_line(f"  and {len(firing) - MOST_NAMED} more firing rules")
    shown = ", ".join(f"{count} {name}" for name, count in counted.most_common()) or "none yet"
    print_line(f"cameras: {shown}")
    for each in broken[:MOST_NAMED]:
        print_line(f"  {each.name}: {each.state}: {each.detail}")
    if len(broken) > MOST_NAMED:
        print_line(f"  and {len(broken) - MOST_NAMED} more: pointillist cameras --broken {layout.state_option}")
    for name, address in addresses.items():
        # The link is a secret: it goes to a person's terminal, never to a log.
        is_owners = name == PAGES["console"] and sys.stdout.isatty()
        print_line(f"{name}: {owner_link(address, layout.owner_token) if is_owners else address}")
    raise typer.Exit(0 if well else UNWELL)


@app.command()
def cameras(
    state: State = DEFAULT_STATE,
    broken: Annotated[bool, typer.Option("--broken", help="Print only cameras that need attention.")] = False,
    json: Json = False,
) -> None:
    """Print every camera with its state, cameras that need attention first."""
    from infra.up.system_state import camera_states

    layout = existing_layout(state)
    found = [each for each in camera_states(layout) if each.broken or not broken]
    if json:
        print_json([asdict(each) for each in found])
        return
    if not found:
        print_line("no camera is broken" if broken else "no camera yet")
        return
    lines = [
        (each.name, each.state, str(each.frames), _age(each), _sends(each), frame_sizes(each), each.detail)
        for each in found
    ]
    titles = ("camera", "state", "frames", "last frame", "sends", "frame size", "reason")
    print_rows(Console(highlight=False), titles, lines)


@app.command()
def logs(
    role: Annotated[str, typer.Argument(help="A role of `pointillist status`, such as recorder.")],
    state: State = DEFAULT_STATE,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Number of lines from the end of the log.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until Ctrl-C.")] = False,
) -> None:
    """Print the log of a role, running or not."""
    file = _log_files(existing_layout(state)).get(role)
    if file is None:
        known = ", ".join(sorted(_log_files(existing_layout(state)))) or "none"
        raise ConfigError(f"role: expected a role with a log in {state} ({known}), got {role!r}. Correct the name.")
    with file.open("rb") as opened:
        text = opened.read()
        typer.echo(b"".join(text.splitlines(keepends=True)[-lines:]), nl=False)
        place, last = opened.tell(), text[-_RECOGNISED:]
    while follow:
        try:
            time.sleep(0.2)
            is_cut = file.stat().st_size < place
            with file.open("rb") as opened:
                opened.seek(0 if is_cut else place)
                text = opened.read()
                if is_cut and not text:  # its kept end is not written yet
                    continue
                place = opened.tell()
            # A log that has grown too long is cut from the front: its kept end was printed up to the last bytes.
            fresh = text.rpartition(last)[2] if is_cut else text
            typer.echo(fresh, nl=False)
            last = (last + fresh)[-_RECOGNISED:]
        except (KeyboardInterrupt, BrokenPipeError):
            return


@app.command()
def down(
    state: State = DEFAULT_STATE,
    wait: Annotated[
        float, typer.Option(help="Maximum seconds to wait until the system has drained and stopped.", min=0)
    ] = 120.0,
) -> None:
    """Stop the `up` of a state folder: cameras drain, roles stop, and the report is written.

    Exit status 1 when the system has not stopped in time, 2 when no system runs.
    """
    from infra.local.role_table import not_running, supervisor

    layout = existing_layout(state)
    process = supervisor(layout.folder)
    if process is None or not process.send(signal.SIGINT):
        raise not_running(layout.folder)
    print_line(f"stopping: the cameras of {layout.folder} drain")
    if not process.wait_gone(wait):
        print_line(f"still stopping after {wait:g} s, as pid {process.pid}")
        raise typer.Exit(UNWELL)
    print_line("stopped")


def _log_files(layout: Layout) -> dict[str, Path]:
    own = {file.stem: file for file in (layout.folder / "logs").glob("*.log")}
    return {file.stem: file for file in layout.folder.glob("*/*.log") if file.stem == file.parent.name} | own


def _age(camera: CameraState) -> str:
    return "" if camera.age_s is None else f"{max(0, round(camera.age_s))} s ago"


def _sends(camera: CameraState) -> str:
    parts: list[Any] = []
    if camera.size is not None:
        parts.append(f"{camera.size[0]}×{camera.size[1]}")
    if camera.frames_per_second is not None:
        parts.append(f"{camera.frames_per_second:g}/s")
    return " ".join(parts)


def frame_sizes(camera: CameraState) -> str:
    """Return `own stream 3.1 kB, published 4.0 kB`; empty for a camera without a video stream."""
    if not camera.own_bytes or not camera.sent_bytes:
        return ""
    return f"own stream {camera.own_bytes / 1000:.1f} kB, published {camera.sent_bytes / 1000:.1f} kB"
