"""The command `camera settings`: the commands and requests that a camera has applied, and their reset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from infra.cli.access import (
    CONNECT_TIMEOUT_S,
    DEFAULT_STATE,
    ConnectTimeout,
    Mqtt,
    MqttLogin,
    MqttTls,
    mqtt_place,
    require_brokers,
)
from infra.cli.audit_line import note
from infra.cli.camera import camera_app
from infra.cli.roles import role_keys
from infra.cli.terminal import Console, Json, print_json
from schemas.errors import StateError
from schemas.runtime.moment import format_utc

if TYPE_CHECKING:
    from schemas.pointillist_pb2 import Meta


@camera_app.command()
def settings(
    name: Annotated[str, typer.Argument(help="The camera as SITE/CAMERA.", metavar="SITE/CAMERA")],
    reset: Annotated[
        bool, typer.Option("--reset", help="Make the camera discard the changes and use its own settings.")
    ] = False,
    mqtt: Mqtt = None,
    mqtt_tls: MqttTls = None,
    mqtt_login: MqttLogin = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="State folder of the running system, from which the broker and the secret are read. Default: "
            ".pointillist, unless --mqtt is given."
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Maximum seconds to wait until the camera confirms the reset.", min=0, max=86_400)
    ] = 10.0,
    json: Json = False,
    connect_timeout_s: ConnectTimeout = CONNECT_TIMEOUT_S,
) -> None:
    """Print a camera's settings, and the values that commands and requests for probes have set.

    With --reset the camera discards the values of commands and requests; an offline camera does so when it returns.
    Exit status 1 when the camera has not answered in time, 2 when the broker has no settings that the camera has
    signed.
    """
    from consumers.console.data.camera_settings import CameraSettingsClient
    from consumers.console.data.commands import outcome_of
    from schemas.identity import camera_id

    identity = camera_id(name)
    if state is None and mqtt is None:
        state = DEFAULT_STATE
    place = mqtt_place(mqtt, state, "admin", tls=mqtt_tls, login=mqtt_login)
    require_brokers(connect_timeout_s, mqtt=place)
    with CameraSettingsClient(place, identity, role_keys(state, "operator")) as camera:
        forgot = camera.reset(wait) if reset else None
        meta, refused = camera.meta, camera.refused
    if forgot is not None:
        note(state, "command", identity, "own settings", outcome_of(forgot, wait))
    if meta is None and forgot is None:
        why = f"rejected: {refused}" if refused is not None else "the broker retains nothing of it"
        raise StateError(
            f"{identity}: expected its announced settings, got none: {why}. Start the camera, or correct its name."
        )
    if json:
        shown: dict[str, Any] = {"camera": identity, "forgot": forgot, "settings": _settings(meta) if meta else []}
        print_json(shown)
    else:
        console = Console(soft_wrap=True, highlight=False)
        if meta is not None:
            console.print(_table(identity, meta))
        if forgot is not None:
            done = "it uses its own settings" if forgot else f"no confirmation for {wait:g} s: it resets on its return"
            console.print(f"{identity} was commanded to reset; {done}", markup=False)
    raise typer.Exit(1 if forgot is False else 0)


def _settings(meta: Meta) -> list[dict[str, Any]]:
    """Return each setting: the present value, and the values that a command and the latest request have set, if any."""
    from schemas.messages.frame import PROFILE_NAMES

    def commanded(field: Any) -> Any:
        return getattr(meta.command_state, field) if meta.command_state.HasField(field) else None

    profile = commanded("profile")
    asked = meta.command_state.asked_share if meta.command_state.HasField("asked_share") else None
    rows: list[tuple[str, Any, Any, Any]] = [
        ("dropped_per_block", meta.dropped_per_block, commanded("dropped_per_block"), None),
        ("probe_share", meta.probe_share, commanded("probe_share"), asked),
        ("profile", PROFILE_NAMES.get(meta.profile), PROFILE_NAMES.get(profile), None),
        ("frames_per_second", meta.frames_per_second, commanded("frames_per_second"), None),
        (
            "enabled",
            meta.command_state.enabled or not meta.command_state.HasField("enabled"),
            commanded("enabled"),
            None,
        ),
    ]
    return [{"setting": n, "is": now, "commanded": command, "asked": request} for n, now, command, request in rows]


def _table(name: str, meta: Meta) -> Table:
    command, request = (format_utc(ms) for ms in (meta.command_state.issued_ms, meta.command_state.asked_ms))
    at = format_utc(meta.turn.at_ms)
    table = Table(
        "setting", "is", f"by the command of {command}", f"by the request of {request}",
        title=f"{name}, as announced at {at}", title_justify="left",
    )  # fmt: skip
    for row in _settings(meta):
        table.add_row(row["setting"], *("" if value is None else str(value) for value in list(row.values())[1:]))
    return table
