"""What a console needs to run jobs of the command line: their arguments, their environment, their processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.local.process import COMMAND, Child
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from consumers.console.settings import JobSettings

_NICE: Final = {"lab": 15}
"""How far a command stands back behind those who process frames; what is short, by `_NICE_SHORT`."""
_NICE_SHORT: Final = 5
_KEPT: Final = ("POINTILLIST_ALLOW_CODE", "POINTILLIST_DATA", "POINTILLIST_FACTORIES")
"""Of our own variables; the others are secrets and addresses of the console's role."""


def job_settings(
    folder: Path | None,
    bundle: Path | None,
    signer: Path | None,
    store: str | None,
    *,
    state: Path | None,
    trust: Path | None,
    kafka: str | None,
    admin_tls: Path | None,
    admin_login: Path | None,
) -> JobSettings | None:
    """What `console` was told of jobs; None without `--jobs`. ConfigError for what cannot be."""
    from consumers.console.settings import JobSettings

    if folder is None:
        given = {"--bundle": bundle, "--signer": signer, "--models": store}
        needless = [option for option, value in given.items() if value is not None]
        if needless:
            raise ConfigError(f"{needless[0]}: expected --jobs beside it")
        return None
    if bundle is not None and not (bundle / "model.toml").is_file():
        raise ConfigError(f"--bundle: expected a folder with model.toml, got {bundle}")
    folder, bundle = folder.resolve(), bundle.resolve() if bundle is not None else None
    if signer is None:
        return JobSettings(folder=folder, bundle=bundle)
    if not signer.is_file():  # whether it is a key the job finds out: the console reads none
        raise ConfigError(f"--signer: expected the file of a private key, found none at {signer}")
    if state is None and store is None:
        raise ConfigError("--signer: expected --models, a folder or URL that every processor can read, or --state")
    fixed = ["--signer", str(signer.resolve())]
    paths = {"--state": state, "--trust": trust, "--kafka-tls": admin_tls, "--kafka-login": admin_login}
    for option, path in paths.items():
        if path is not None:
            fixed += [option, str(path.resolve())]
    if kafka is not None:
        fixed += ["--kafka", kafka]
    stored = ["--store", store] if store is not None else []
    return JobSettings(folder=folder, bundle=bundle, publish=(*fixed, *stored), rollback=tuple(fixed))


def launcher() -> Callable[[Sequence[str], Path], Child]:
    """Starts jobs: niced, without the role's secrets, ended with this process."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("POINTILLIST_") or name in _KEPT
    }

    def launch(arguments: Sequence[str], log: Path) -> Child:
        niced = ("nice", "-n", str(_NICE.get(arguments[0], _NICE_SHORT)))
        return Child([*niced, *COMMAND, *arguments], log, env=environment)

    return launch
