"""`pointillist model …`: the model that the processors serve."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from infra.cli import app
from infra.cli.access import CONNECT_TIMEOUT_S, KafkaOptions, require_brokers
from infra.cli.audit_line import note
from infra.cli.code import AllowCode
from infra.cli.rows import print_rows
from infra.cli.shared_options import with_shared_options
from infra.cli.signer import SignerFile, Trust, signer_of, trusted_of
from infra.cli.terminal import Console, Json, print_json, print_line
from schemas.clock import unix_ms
from schemas.errors import BundleError, ConfigError, first_line
from schemas.runtime.moment import format_utc

if TYPE_CHECKING:
    from infra.bundling.models_topic import ModelsTopic
    from processors.models.store import ModelStore
    from schemas.keys.signers import Signer
    from schemas.pointillist_pb2 import Model, Models

R = TypeVar("R")

model_app = typer.Typer(
    help="List, publish, roll back and compare the models of the processors. Give --state, or --kafka, "
    "--signer and --trust; without both, the folder is .pointillist.",
    no_args_is_help=True,
)
app.add_typer(model_app, name="model")

_Wait = Annotated[
    float, typer.Option(help="Maximum seconds to wait until the running processors serve the model.", min=0)
]
_ConnectTimeout = Annotated[float, typer.Option(help="Seconds to wait for Kafka before giving up.", min=0.1)]
OtherClasses = Annotated[
    bool,
    typer.Option(
        "--other-classes", help="Allow classes other than those of the live model, such as your taught classes."
    ),
]


@dataclass(frozen=True)
class ModelsAccess(KafkaOptions):
    """Access of a command to the list of models."""

    trust: Trust = None
    connect_timeout_s: _ConnectTimeout = CONNECT_TIMEOUT_S

    def run(self, work: Callable[[ModelsTopic], Awaitable[R]], signer: Signer | None = None) -> R:
        """Return the result of `work` on the topic of models."""
        from infra.bundling.models_topic import ModelsTopic

        trusted = trusted_of(self.trust, self.state)
        where = self.place
        require_brokers(self.connect_timeout_s, kafka=where)

        async def body() -> R:
            async with ModelsTopic(where, trusted, signer) as topic:
                if signer is not None and topic.refused:
                    words = f"the newest list of models is not accepted, and will be replaced: {topic.refused}"
                    print_line(words, err=True)
                return await work(topic)

        return asyncio.run(body())


@dataclass(frozen=True)
class ModelsChange(ModelsAccess):
    """Access of a command that signs a new list of models."""

    signer: SignerFile = None
    wait: _Wait = 60.0
    store: Annotated[
        str | None,
        typer.Option(
            help="Folder or URL (fsspec) for published bundles, which every processor can read. Default: in the "
            "state folder."
        ),
    ] = None

    @property
    def key(self) -> Signer:
        """The key that signs. Raises ConfigError without one."""
        return signer_of(self.signer, self.state)

    def apply(self, change: Callable[[ModelsTopic], Awaitable[bool]], key: Signer | None = None) -> NoReturn:
        """Change the list; exit with status 1 if a processor has not applied the change."""
        raise typer.Exit(0 if self.run(change, key or self.key) else 1)

    @property
    def bundles(self) -> ModelStore:
        """The store of bundles: the given one, else the state folder's. Raises ConfigError without either."""
        from infra.state_folder import Layout
        from processors.models.store import ModelStore

        if self.store is None and self.state is None:
            raise ConfigError(
                "--store is missing: expected a folder or URL that every processor can read. Give --store or --state."
            )
        return ModelStore(self.store or str(Layout((self.state or Path()).resolve()).models))

    async def write(self, topic: ModelsTopic, after: Models) -> None:
        """Replace the list of models, then remove the bundles from the store that only the list before names.

        The list before is the signed one: it also names a candidate that the gate has ended. Without a store, all
        bundles stay. The change is in force by then, so a store that fails is a warning.
        """
        from schemas.messages.rollout import named

        before = named(topic.listed)
        await topic.write(after)
        kept = {each.digest for each in named(after)}
        gone = [each for each in before if each.digest not in kept]
        if self.store is None and self.state is None:
            return
        try:
            for model in gone:
                self.bundles.discard(model)
        except Exception as error:  # each kind of store has its own errors
            words = f"warning: the store: expected to remove {model.model_id}, got {first_line(error)}"
            print_line(words, err=True)


@model_app.command()
@with_shared_options
def publish(
    bundle: Annotated[
        Path, typer.Argument(help="A folder with model.toml, or the name of a bundle: shipped, or made here.")
    ],
    *,
    force: Annotated[
        bool, typer.Option(help="Publish in spite of other classes than the live model's, or a missing STRIP.")
    ] = False,
    other_classes: OtherClasses = False,
    allow_code: AllowCode = False,
    access: ModelsChange,
) -> None:
    """Sign a bundle and make it the live model: every processor loads it next to the one that it serves, and switches.

    Exit status 1 when a processor rejects it or has not answered in time, 2 when it is not published.
    """
    from infra.bundling.model_identity import check_identity
    from infra.bundling.models_topic import check_successor
    from schemas.messages import models as listed
    from schemas.messages import rollout

    place, key = access.bundles, access.key
    with private_copy(folder_of(bundle)) as folder:
        model_id = checked(folder)

        async def run(topic: ModelsTopic) -> bool:
            before = topic.models if topic.models.published else initial(access.state, place, key)
            live = listed.live(before)
            if not force and live is not None:
                check_successor(described(folder, model_id), live, other_classes=other_classes)
            check_identity(folder, model_id, rollout.named(before))
            model = listed.sign(place.add(folder, model_id), key)
            running = (await topic.running()) & topic.served.keys()
            rejecting = [name for name in running if topic.served[name].refused_digest == model.digest]
            if live is not None and live.digest == model.digest:
                if not rejecting:
                    return await report_change(topic, f"{model_id} is live already", access.wait)
                changed = listed.publish(listed.withdraw(before, unix_ms()), model)
                if before.HasField("rollout"):  # it goes on
                    changed.rollout.CopyFrom(before.rollout)
            else:
                changed = listed.publish(rollout.ended(before), model)
            await access.write(topic, changed)
            for name in rejecting:  # another publication is another attempt, of which each reports the result
                del topic.served[name]
            note(access.state, "publish", model_id, "forced" if force else "by hand", "live")
            return await report_change(topic, f"published {model_id}", access.wait)

        access.apply(run, key)


Only = Annotated[
    str | None,
    typer.Option(help="Id of the expected model, as `model list` shows it: the command fails for any other model."),
]


def check_only(only: str | None, model_id: str) -> None:
    """Raise ConfigError if `only` names another model."""
    if only is not None and only != model_id:
        raise ConfigError(
            f"--only: expected the model {only}, got {model_id}. See `pointillist model status`, and correct --only."
        )


@model_app.command()
@with_shared_options
def rollback(
    *,
    own: Annotated[
        bool, typer.Option(help="Withdraw all published models: each processor then serves its own --bundle.")
    ] = False,
    only: Only = None,
    access: ModelsChange,
) -> None:
    """Withdraw the live model: the newest earlier one that is not withdrawn becomes live again.

    Exit status 1 when a processor rejects the change or has not answered in time.
    """
    from schemas.messages import models as listed
    from schemas.messages import rollout

    async def run(topic: ModelsTopic) -> bool:
        live = listed.live(topic.models)
        if live is None:
            raise ConfigError(
                "model: expected a published model that is not withdrawn, got none. Each processor serves its own "
                "--bundle."
            )
        check_only(only, live.model_id)
        after = listed.withdraw(rollout.ended(topic.models), unix_ms(), everything=own)
        await access.write(topic, after)
        now = listed.live(after)
        name = now.model_id if now is not None else "each processor's own bundle"
        note(access.state, "roll back", live.model_id, f"live is {name}", "withdrawn")
        return await report_change(topic, f"withdrawn {live.model_id}; live is {name}", access.wait)

    access.apply(run)


@model_app.command(name="list")
@with_shared_options
def show_list(
    *,
    json: Json = False,
    access: ModelsAccess,
) -> None:
    """Print the published models, newest first."""

    async def run(topic: ModelsTopic) -> list[dict[str, Any]]:
        if topic.refused:
            words = f"the newest list of models is not accepted, the one before it is in force: {topic.refused}"
            print_line(words, err=True)
        newest = next((i for i, model in enumerate(topic.models.published) if not model.withdrawn_ms), -1)
        return [
            {
                "model_id": model.model_id,
                "state": "withdrawn" if model.withdrawn_ms else "before" if place > newest else "live",
                "published_ms": model.published_ms,
                "withdrawn_ms": model.withdrawn_ms or None,
                "digest": model.digest,
                "location": model.location,
            }
            for place, model in enumerate(topic.models.published)
        ]

    rows = access.run(run)
    if json:
        print_json(rows)
        return
    console = Console(soft_wrap=True)
    if not rows:
        console.print("nothing is published: each processor serves its own bundle", markup=False)
        return
    lines = [(row["model_id"], row["state"], format_utc(row["published_ms"]), row["location"]) for row in rows]
    print_rows(console, ("model", "state", "published", "location"), lines)


@model_app.command()
@with_shared_options
def status(
    *,
    json: Json = False,
    access: ModelsAccess,
) -> None:
    """Print the live model, and the model that each processor serves."""
    from schemas.messages import models as listed

    async def run(topic: ModelsTopic) -> dict[str, Any]:
        live = listed.live(topic.models)
        running = await topic.running()
        digest = live.digest if live is not None else ""
        processors = []
        for name, served in sorted(topic.served.items()):
            processors.append(
                {
                    "processor": name,
                    "running": name in running,
                    "model_id": served.model_id,
                    "is_live": served.digest == digest,
                    "runs": served.runs,
                    "since_ms": served.since_ms,
                    "error": served.error or None,
                    "candidate": served.candidate_digest or None,
                    "candidate_error": served.candidate_error or None,
                }
            )
        error = topic.refused or None
        found = {"live": live.model_id if live is not None else None, "error": error, "processors": processors}
        return found | {"rollout": rollout_of(topic)}

    found = access.run(run)
    if json:
        print_json(found)
        return
    console = Console(soft_wrap=True)
    console.print(f"live: {found['live'] or 'each processor serves its own bundle'}", markup=False)
    if (rollout := found["rollout"]) is not None:
        console.print(f"candidate: {rollout['model_id']}, {rollout['slot']}, {rollout['outcome']}", markup=False)
        for rule in rollout["rules"]:
            figures = rule.get("reason") or f"{rule['value']}, limit {rule['limit']}"
            console.print(f"  {rule['name']}: {rule['finding']} ({figures})", markup=False)
    if found["error"]:
        console.print(f"the newest list of models is rejected: {found['error']}", markup=False)
    lines = [
        (
            row["processor"], _yes(row["running"]), row["model_id"], _yes(row["is_live"]), row["runs"],
            format_utc(row["since_ms"]), row["error"] or "",
        )
        for row in found["processors"]
    ]  # fmt: skip
    print_rows(console, ("processor", "running", "serves", "is live", "runs", "since", "refused"), lines)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def rollout_of(topic: ModelsTopic) -> dict[str, Any] | None:
    """Return the newest rollout with the gate's report; None without one."""
    from json import loads

    from schemas.messages.rollout import slots
    from schemas.pointillist_pb2 import Outcome, Slot

    assessment = topic.assessment
    # The record of one that the gate has ended stays until somebody edits the list.
    rollout = slots(topic.models).rollout or (topic.listed.rollout if topic.listed.HasField("rollout") else None)
    if rollout is None:
        return None
    report = loads(assessment.report) if assessment is not None else {}
    return {
        "model_id": rollout.candidate.model_id,
        "digest": rollout.candidate.digest,
        "slot": Slot.Name(rollout.slot).lower(),
        "frames": round(rollout.frames, 4),
        "cameras": round(rollout.cameras, 4),
        "by_rule": rollout.by_rule,
        "outcome": Outcome.Name(assessment.outcome).lower() if assessment is not None else "not assessed",
        "pairs": report.get("pairs", 0),
        "rules": report.get("rules", []),
    }


def folder_of(bundle: Path) -> Path:
    """Return the checked folder of a bundle, given by its path or by the name of a shipped one."""
    from infra.cli.lab.shared import bundle_folder

    return bundle_folder(str(bundle))


@contextmanager
def private_copy(folder: Path) -> Iterator[Path]:
    """Provide a copy of a bundle that no other user can change: what is checked is then what is signed.

    A BundleError in the block names `folder` in place of the copy.
    """
    with TemporaryDirectory(prefix="pointillist-bundle-") as place:
        copy = Path(place) / (folder.name or "bundle")
        try:
            shutil.copytree(folder, copy, symlinks=True)
        except OSError as error:
            raise BundleError(f"{folder}: expected files that can be copied, got {first_line(error)}.") from None
        try:
            yield copy
        except BundleError as error:
            raise type(error)(str(error).replace(str(copy), str(folder))) from None


def checked(folder: Path) -> str:
    """Return the id of the bundle in `folder` after loading and trying it."""
    import torch

    from processors.bundle import load_bundle

    return load_bundle(folder, torch.device("cpu")).model_id


def described(folder: Path, model_id: str) -> Model:
    """Return the description of a bundle that `check_successor` compares."""
    from processors.bundle import read_settings
    from schemas.pointillist_pb2 import Model

    settings = read_settings(folder)
    return Model(model_id=model_id, classes=settings.classes, strip=settings.strip is not None)


def initial(state: Path | None, place: ModelStore, signer: Signer) -> Models:
    """Return the model of `up` as the first entry of the list: a rollback can then reach it permanently."""
    from infra.state_folder import Layout
    from schemas.messages.models import sign
    from schemas.pointillist_pb2 import Models

    layout = Layout(state.resolve()) if state is not None else None
    if layout is None or (folder := layout.bundle) is None:
        return Models()
    try:
        with private_copy(folder) as copy:
            first = sign(place.add(copy, checked(copy)), signer)
    except BundleError as error:
        print_line(f"not kept as the model before: {error}", err=True)
        return Models()
    first.published_ms = layout.started_ms or first.published_ms
    return Models(published=[first])


Answers = tuple[set[str], dict[str, str], set[str]]


async def report_change(
    topic: ModelsTopic, done: str, wait_s: float, wait: Callable[[float], Awaitable[Answers]] | None = None
) -> bool:
    """Print the change and each processor's answer; return whether all running processors have applied it."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(done, markup=False)
    start_s = time.monotonic()
    serve, refuse, silent = await (wait or topic.wait)(wait_s)
    seconds = time.monotonic() - start_s
    if serve:
        console.print(f"served after {seconds:.1f} s by {', '.join(sorted(serve))}", markup=False)
    for name, error in sorted(refuse.items()):
        console.print(f"rejected by {name}: {error}", markup=False)
    if silent:
        console.print(f"no answer for {wait_s:g} s from {', '.join(sorted(silent))}", markup=False)
    if not serve and not refuse and not silent:
        console.print("no processor runs: those that start serve it", markup=False)
    return not refuse and not silent
