"""The console's jobs on the command line: their arguments, their environment, their processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.local.child_environment import STORES, inherited
from infra.local.process import COMMAND, Child
from schemas.errors import ConfigError
from schemas.runtime.module import MODULE

if TYPE_CHECKING:
    from consumers.console.settings import ConsoleSettings, JobSettings

_NICE: Final = {"lab": 15, "teach": 10}
"""Niceness of long commands by group, behind processors; short commands have `_NICE_SHORT`."""
_NICE_SHORT: Final = 5
_KEPT: Final = ("POINTILLIST_ALLOW_CODE", "POINTILLIST_DATA", "POINTILLIST_FACTORIES")
"""The only variables of ours that a job inherits; the others are secrets and addresses of the console's role."""


def job_settings(settings: ConsoleSettings) -> JobSettings | None:
    """Return the settings of a console's jobs with their arguments; ConfigError for a file that is missing."""
    jobs = settings.jobs
    if jobs is None:
        return None
    if jobs.bundle is not None and not (jobs.bundle / "model.toml").is_file():
        raise ConfigError(f"jobs.bundle: expected a folder with model.toml, got {jobs.bundle}. Correct the path.")
    found: dict[str, Any] = {"folder": jobs.folder.resolve(), "bundle": jobs.bundle and jobs.bundle.resolve()}
    if jobs.signer is None:
        return jobs.model_copy(update=found)
    if not jobs.signer.is_file():  # the job checks the key: the console reads none
        raise ConfigError(f"jobs.signer: expected the file of a private key, got {jobs.signer}. Correct the path.")
    fixed = ["--signer", str(jobs.signer.resolve())]
    paths = {
        "--state": settings.state,
        "--trust": settings.trust,
        "--kafka-tls": jobs.admin_tls,
        "--kafka-login-file": jobs.admin_login_file,
    }
    for option, path in paths.items():
        if path is not None:
            fixed += [option, str(path.resolve())]
    if settings.kafka:
        fixed += ["--kafka", str(settings.kafka)]
    if jobs.models is not None:
        fixed += ["--store", jobs.models]
    arguments = {name: getattr(jobs, name) or tuple(fixed) for name in ("publish", "rollback")}
    return jobs.model_copy(update=arguments | found)


def job_environment(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment of a child process of the console with these arguments, without the role's secrets.

    Only a job with a `--store` gets the credentials of object stores.
    """
    has_store = any(argument.partition("=")[0] == "--store" for argument in arguments)
    return inherited(*_KEPT, *(STORES if has_store else ()))


def launcher() -> Callable[[Sequence[str], Path, Mapping[str, str]], Child]:
    """Return a function that starts jobs: niced, without the role's secrets, ended with this process."""

    def launch(arguments: Sequence[str], log: Path, variables: Mapping[str, str]) -> Child:
        # A job leads its own session, where `nice` alone has no effect.
        niced = (*MODULE, "schemas.runtime.priority", str(_NICE.get(arguments[0], _NICE_SHORT)))
        return Child([*niced, *COMMAND, *arguments], log, env=job_environment(arguments) | dict(variables))

    return launch
