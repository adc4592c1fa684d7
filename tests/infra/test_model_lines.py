"""The printed lines and the errors of `pointillist model`, with a list of models in memory in place of Kafka."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from consumers.console.data.store import Store
from infra.bundling.model_identity import check_identity
from infra.cli.model import ModelsAccess, folder_of, initial
from infra.state_folder import Layout
from processors.models.store import ModelStore, bundle_files
from schemas.errors import BundleError
from schemas.keys.signers import write_signer
from schemas.messages import models as listed
from schemas.messages import rollout as rollouts
from schemas.pointillist_pb2 import CANARY, PASSED, SHADOW, Assessment, Model, Models, Rollout, ServedModel
from schemas.runtime.json_files import write_json
from tests.consumers.console_rig import OWNER
from tests.infra.command_line import refusal, run
from tests.processors.tiny import SIGNER, use_own_factory, write_bundle

SERVED_MS = 1_700_000_000_000
DAY = "2023-11-14 22:13:20 UTC"


class StandInTopic:
    """A stand-in for the topic of models: a list, and the answers of processors."""

    def __init__(self) -> None:
        self.models = Models()
        self.listed = self.models
        self.served: dict[str, ServedModel] = {}
        self.refused = ""
        self.assessment: Assessment | None = None
        self.running_names: set[str] = set()
        self.answers: tuple[set[str], dict[str, str], set[str]] = (set(), {}, set())

    async def running(self) -> set[str]:
        return self.running_names

    async def require(self, topic: str) -> None:
        pass

    async def write(self, models: Models) -> None:
        self.models = self.listed = models

    async def wait(self, seconds: float) -> tuple[set[str], dict[str, str], set[str]]:
        return self.answers

    wait_for_candidate = wait


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> StandInTopic:
    stand_in = StandInTopic()

    def run_on(_: ModelsAccess, work: Callable[[Any], Awaitable[object]], signer: object = None) -> object:
        async def body() -> object:
            return await work(stand_in)

        return asyncio.run(body())

    monkeypatch.setattr(ModelsAccess, "run", run_on)
    return stand_in


def published_models(*names: str) -> Models:
    """Return a list of published models, newest first."""
    return Models(
        published=[
            Model(model_id=name, digest=f"{number:064x}", published_ms=SERVED_MS, location=f"/store/{name}")
            for number, name in enumerate(names, 1)
        ]
    )


def shadow(name: str, **fields: Any) -> Rollout:
    """Return a rollout of a candidate in the slot shadow."""
    candidate = Model(model_id=name, digest="c" * 64)
    return Rollout(candidate=candidate, begun_ms=5, slot=SHADOW, frames=0.5, cameras=1.0, **fields)


def cells(output: str, first: str) -> list[str]:
    """Return the row of a table whose first cell is `first`."""
    (row,) = (
        found
        for line in output.splitlines()
        if (found := [each.strip() for each in line.split("│")[1:-1]])[:1] == [first]
    )
    return row


def test_without_a_published_model_each_processor_serves_its_own(topic: StandInTopic) -> None:
    assert run("model", "list").output == "nothing is published: each processor serves its own bundle\n"
    assert run("model", "status").output.startswith("live: each processor serves its own bundle\n")


def test_published_models_are_listed_with_their_state_and_location(topic: StandInTopic) -> None:
    topic.models = published_models("third", "second", "first")
    topic.models.published[0].withdrawn_ms = SERVED_MS + 1
    output = run("model", "list", COLUMNS="200").output
    assert cells(output, "third") == ["third", "withdrawn", DAY, "/store/third"]
    assert [cells(output, name)[1] for name in ("second", "first")] == ["live", "before"]


def test_the_status_names_the_candidate_its_rules_and_the_model_of_each_processor(topic: StandInTopic) -> None:
    topic.models = topic.listed = rollouts.begin(published_models("now"), shadow("next"))
    rule = '{"name": "agreement", "finding": "holds", "value": 0.99, "limit": 0.95}'
    frames = '{"name": "frames", "finding": "fails", "value": 0, "limit": 1, "reason": "no frame"}'
    topic.assessment = Assessment(outcome=PASSED, report=f'{{"pairs": 9, "rules": [{rule}, {frames}]}}')
    topic.refused = "it is older"
    topic.served = {
        "p-1": ServedModel(model_id="now", digest=f"{1:064x}", runs="torch", since_ms=SERVED_MS),
        "p-2": ServedModel(model_id="before", digest="0" * 64, runs="torch", since_ms=SERVED_MS, error="too large"),
    }
    topic.running_names = {"p-1"}
    output = run("model", "status", COLUMNS="200").output
    assert output.startswith("live: now\ncandidate: next, shadow, passed\n  agreement: holds (0.99, limit 0.95)\n")
    assert "\n  frames: fails (no frame)\n" in output
    assert "the newest list of models is rejected: it is older\n" in output
    assert cells(output, "p-1") == ["p-1", "yes", "now", "yes", "torch", DAY, ""]
    assert cells(output, "p-2") == ["p-2", "no", "before", "no", "torch", DAY, "too large"]


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ((set(), {}, set()), 0, "no processor runs: those that start serve it"),
        (({"p-2", "p-1"}, {}, set()), 0, "by p-1, p-2"),
        (({"p-1"}, {"p-2": "too large"}, set()), 1, "rejected by p-2: too large"),
        (({"p-1"}, {}, {"p-3"}), 1, "no answer for 60 s from p-3"),
    ],
)
def test_a_change_prints_the_answers_of_the_processors(
    topic: StandInTopic, tmp_path: Path, answers: tuple[set[str], dict[str, str], set[str]], code: int, words: str
) -> None:
    topic.models = topic.listed = rollouts.begin(published_models("now"), shadow("next"))
    topic.answers = answers
    Layout(tmp_path).signer()
    done = run("model", "dismiss", "--state", tmp_path)
    assert (done.exit_code, done.output.splitlines()[0]) == (code, "dismissed next")
    assert done.output.splitlines()[-1].endswith(words)
    assert not topic.models.HasField("rollout")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dismiss",), "rollout"),
        (("promote", "--force"), "rollout"),
        (("promote", "--to", "shadow"), "--to: expected live or canary, got 'shadow'"),
        (("candidate", "x", "--slot", "live"), "--slot: expected shadow or canary, got 'live'"),
        (("candidate", "x", "--by-rule"), "--clean is missing: expected clean pictures"),
    ],
)
def test_an_impossible_step_is_one_error_line(
    topic: StandInTopic, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    Layout(tmp_path).signer()
    assert words in refusal(run("model", *arguments, "--state", tmp_path))
    assert topic.models == Models()


def test_promotion_by_rule_needs_the_public_key_of_the_gate(topic: StandInTopic, tmp_path: Path) -> None:
    key, clean, empty = tmp_path / "ada.key", tmp_path / "clean.npz", tmp_path / "gate.pub"
    write_signer(key, SIGNER)
    empty.write_text("# nobody yet\n")
    command = (
        "model", "candidate", write_bundle(tmp_path / "bundle"), "--signer", key, "--store", tmp_path / "store"
    )  # fmt: skip
    by_rule = refusal(run(*command, "--kafka", "127.0.0.1:1", "--clean", clean, "--by-rule"))
    assert by_rule == (
        "--decider is missing: expected the gate's public key with --by-rule. Give --decider FILE or --state DIR."
    )
    line = refusal(run(*command, "--decider", empty))
    assert line.startswith("--decider: expected the gate's public key as `signer init` prints it, got none in ")
    assert topic.models == Models()


def test_a_candidate_becomes_a_canary_after_a_passed_gate_and_a_scan_or_by_force(
    topic: StandInTopic, tmp_path: Path
) -> None:
    Layout(tmp_path).signer()
    topic.models = topic.listed = rollouts.begin(published_models("now"), shadow("next"))
    canary = ("model", "promote", "--to", "canary", "--state", tmp_path)
    assert "expected an assessment with all rules passed" in refusal(run(*canary))
    topic.assessment = Assessment(outcome=PASSED)
    assert "expected a backdoor scan before a canary, got none" in refusal(run(*canary))
    done = run(*canary, "--force")
    assert done.output.splitlines()[0] == "next is a canary"
    assert topic.models.rollout.slot == CANARY


def test_a_published_bundle_evicts_the_oldest_from_list_and_store(
    topic: StandInTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, folder = tmp_path / "state", write_bundle(tmp_path / "bundle")
    Layout(state).signer()
    store = ModelStore(str(Layout(state).models))
    old = listed.sign(store.add(write_bundle(tmp_path / "old", overlays=2), "old"), SIGNER)
    topic.models = topic.listed = Models(published=[old])
    monkeypatch.setattr(listed, "publish", lambda _, model: Models(published=[model]))
    done = run("model", "publish", folder, "--state", state, "--force")
    assert (done.exit_code, done.output.split(" ")[0]) == (0, "published"), done.output
    assert len(topic.models.published) == 1
    assert not Path(old.location.removeprefix("file://")).exists()
    assert Path(topic.models.published[0].location.removeprefix("file://")).is_dir()
    repeated = run("model", "publish", folder, "--state", state)
    assert repeated.output.splitlines()[0].endswith("is live already")


def test_a_live_model_that_a_running_processor_rejects_is_published_again(topic: StandInTopic, tmp_path: Path) -> None:
    folder, options = write_bundle(tmp_path / "bundle"), ("--state", tmp_path / "state")
    Layout(tmp_path / "state").signer()
    run("model", "publish", folder, *options)
    (first,) = topic.models.published
    topic.served = {name: ServedModel(refused_digest=first.digest, error="changed") for name in ("p-1", "gone")}
    assert run("model", "publish", folder, *options).output.splitlines()[0].endswith("is live already")
    topic.running_names = {"p-1"}
    candidate = write_bundle(tmp_path / "2", overlays=2)
    assert run("model", "candidate", candidate, *options, "--force").exit_code == 0
    assert run("model", "publish", folder, *options).output.splitlines()[0].startswith("published ")
    assert topic.listed.rollout.candidate.model_id  # its comparison goes on
    again, before = topic.models.published
    assert (again.digest, before.digest, bool(before.withdrawn_ms)) == (first.digest, first.digest, True)
    assert "p-1" not in topic.served


@pytest.mark.parametrize("command", ["publish", "candidate"])
@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("classes", "'stop'", "'halt'"),
        ("input", "std = [0.25", "std = [0.5"),
        ("output", 'format = "safetensors"', 'format = "safetensors"\noutput = "probabilities"'),
    ],
)
def test_a_bundle_that_decides_in_another_way_needs_a_version_of_its_own(
    topic: StandInTopic, tmp_path: Path, command: str, key: str, old: str, new: str
) -> None:
    folder, options = write_bundle(tmp_path / "bundle"), ("--state", tmp_path / "state", "--force")
    Layout(tmp_path / "state").signer()
    run("model", "publish", folder, *options)
    before = topic.models
    table = folder / "model.toml"
    table.write_text(table.read_text().replace(old, new))
    line = refusal(run("model", command, folder, *options))
    assert line.startswith("bundle: expected a model id of its own, got tiny@1+")
    assert f"a published model that differs in {key}. Raise version in model.toml" in line
    assert topic.models == before
    assert stored(tmp_path / "state") == folders(before)
    table.write_text(table.read_text().replace('version = "1"', 'version = "2"'))
    assert run("model", command, folder, *options).exit_code == 0


def test_a_bundle_is_compared_only_with_other_models_that_the_store_returns(
    topic: StandInTopic, tmp_path: Path
) -> None:
    folder, options = write_bundle(tmp_path / "bundle"), ("--state", tmp_path / "state", "--force")
    Layout(tmp_path / "state").signer()
    run("model", "publish", folder, *options)
    table = folder / "model.toml"
    table.write_text(table.read_text().replace("'stop'", "'halt'"))
    refusal(run("model", "publish", folder, *options))
    (published,) = topic.models.published
    same = Model(model_id=published.model_id, digest=listed.bundle_digest(bundle_files(folder)))
    check_identity(folder, published.model_id, [published, same])
    shutil.rmtree(Layout(tmp_path / "state").models / folder_name(published))
    assert run("model", "publish", folder, *options).exit_code == 0


def test_a_changed_file_of_code_needs_a_version_of_its_own(topic: StandInTopic, tmp_path: Path) -> None:
    folder, options = write_bundle(tmp_path / "bundle"), ("--state", tmp_path / "state", "--allow-code")
    use_own_factory(folder)
    Layout(tmp_path / "state").signer()
    assert run("model", "publish", folder, *options).exit_code == 0
    use_own_factory(folder, "another = True\n")
    assert "a published model that differs in network.py" in refusal(run("model", "publish", folder, *options))


def test_a_bundle_with_another_threshold_of_strip_is_published_under_its_version(
    topic: StandInTopic, tmp_path: Path
) -> None:
    folder, options = write_bundle(tmp_path / "bundle"), ("--state", tmp_path / "state")
    Layout(tmp_path / "state").signer()
    run("model", "publish", folder, *options)
    write_bundle(folder, overlays=3, threshold_bits=0.5)
    (folder / "README.md").write_text("calibrated\n")
    assert run("model", "publish", folder, *options).output.startswith("published ")
    after, before = topic.models.published
    assert after.model_id == before.model_id
    assert after.digest != before.digest


@pytest.mark.parametrize("end", ["dismiss", "replace", "publish", "rollback", "fail"])
def test_the_bundle_of_an_ended_candidate_is_removed_from_the_store(
    topic: StandInTopic, tmp_path: Path, end: str
) -> None:
    state, first, second = tmp_path / "state", write_bundle(tmp_path / "1"), write_bundle(tmp_path / "2", overlays=2)
    options = ("--state", state, "--force")
    Layout(state).signer()
    assert run("model", "publish", write_bundle(tmp_path / "0", overlays=3), *options).exit_code == 0
    assert run("model", "candidate", first, *options).exit_code == 0
    assert stored(state) == folders(topic.listed)
    candidate = {folder_name(topic.listed.rollout.candidate)}
    if end == "fail":  # the gate: the signed list still names the candidate
        topic.models = rollouts.ended(topic.listed)
        end = "replace"
    arguments = {"replace": ("candidate", second, *options), "publish": ("publish", second, *options)}
    done = run("model", *arguments.get(end, (end, "--state", state)))
    assert (done.exit_code, done.stderr) == (0, "")
    assert stored(state) == folders(topic.listed)
    assert not candidate & stored(state)
    assert run("model", "candidate", first, *options).exit_code == 0
    assert candidate <= stored(state) == folders(topic.listed)


def stored(state: Path) -> set[str]:
    return {each.name for each in Layout(state).models.iterdir()}


def folders(models: Models) -> set[str]:
    return {folder_name(each) for each in rollouts.named(models)}


def folder_name(model: Model) -> str:
    return model.location.rpartition("/")[2]


def test_promoted_and_withdrawn_models_and_a_repeated_candidate_stay_in_the_store(
    topic: StandInTopic, tmp_path: Path
) -> None:
    state, bundle = tmp_path / "state", write_bundle(tmp_path / "bundle")
    options = ("--state", state, "--force")
    Layout(state).signer()
    assert run("model", "publish", write_bundle(tmp_path / "0", overlays=2), *options).exit_code == 0
    for arguments in (
        ("candidate", bundle, *options), ("candidate", bundle, *options), ("promote", "--to", "canary", *options),
        ("promote", *options), ("rollback", "--state", state),
    ):  # fmt: skip
        done = run("model", *arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        assert len(stored(state)) == 2
        assert stored(state) == folders(topic.listed)
    # A bundle that is published again is in the list twice.
    assert run("model", "publish", bundle, *options).exit_code == 0
    assert stored(state) == folders(topic.listed)


@pytest.mark.parametrize("by_gate", [False, True])
def test_a_promotion_evicts_the_oldest_from_list_and_store(
    topic: StandInTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_gate: bool
) -> None:
    state = tmp_path / "state"
    monkeypatch.setattr(listed, "MAX_PUBLISHED", 1)
    Layout(state).signer()
    assert run("model", "publish", write_bundle(tmp_path / "0", overlays=2), "--state", state).exit_code == 0
    assert run("model", "candidate", write_bundle(tmp_path / "1"), "--state", state, "--force").exit_code == 0
    if by_gate:  # the next change of the list removes the files
        topic.models = rollouts.promoted(topic.listed)
    next_change = ("rollback",) if by_gate else ("promote", "--force")
    assert run("model", *next_change, "--state", state).exit_code == 0
    assert stored(state) == folders(topic.listed)
    assert len(stored(state)) == 1


def test_a_store_that_fails_after_the_change_is_a_warning(topic: StandInTopic, tmp_path: Path) -> None:
    Layout(tmp_path).signer()
    topic.models = topic.listed = rollouts.begin(published_models("now"), shadow("next"))
    done = run("model", "dismiss", "--state", tmp_path, "--store", "nothing://here")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "dismissed next")
    assert done.stderr.startswith("warning: the store: expected to remove next, got the store: expected a folder or")
    assert not topic.models.HasField("rollout")


def test_a_publication_and_a_rollback_are_in_the_audit_log(topic: StandInTopic, tmp_path: Path) -> None:
    state = tmp_path / "state"
    Layout(state).signer()
    topic.models = topic.listed = published_models("before")
    assert run("model", "publish", write_bundle(tmp_path / "bundle"), "--state", state, "--force").exit_code == 0
    name = topic.models.published[0].model_id
    assert run("model", "rollback", "--state", state).exit_code == 0
    noted = [
        (line.who, line.what, line.subject, line.outcome)
        for line in Store(Layout(state).console_url).newest_operations()
    ]
    assert noted == [(OWNER, "roll back", name, "withdrawn"), (OWNER, "publish", name, "live")]


def test_a_removed_bundle_of_up_is_not_listed_as_the_earlier_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "run.json", {"bundle": str(tmp_path / "gone")})
    assert initial(tmp_path, ModelStore(str(tmp_path / "store")), SIGNER) == Models()
    assert capsys.readouterr().err.startswith("not kept as the model before: ")
    assert initial(None, ModelStore(str(tmp_path / "store")), SIGNER) == Models()


def test_a_name_without_a_folder_is_a_shipped_bundle(tmp_path: Path) -> None:
    assert folder_of(tmp_path) == tmp_path
    assert (folder_of(Path("scene")) / "model.toml").is_file()
    with pytest.raises(BundleError, match="got 'no-such-bundle'"):
        folder_of(Path("no-such-bundle"))
