"""The command `pointillist model`, with a real Kafka and without processors."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import Result

import infra.cli.model
import infra.cli.model_rollout
import infra.cli.signer
from consumers.console.data.store import Store
from infra.bundling.models_topic import ModelsTopic
from infra.cli.model import private_copy
from infra.local.kafka import Kafka
from infra.local.topics import create_topics, pointillist_topics
from infra.state_folder import Layout
from infra.up.run import _Run
from infra.up.settings import UpSettings
from lab.repair.scan import ScanResult
from schemas.errors import BrokerError, BundleError, ConfigError, StateError
from schemas.keys.signers import SignaturePurpose, Signer, TrustedSigners
from schemas.pointillist_pb2 import Model, Models
from schemas.runtime.json_files import write_json
from schemas.topics import KafkaTopic
from tests.conftest import TopicFactory
from tests.consumers.console_rig import OWNER
from tests.infra.command_line import refusal
from tests.infra.command_line import run as run_command
from tests.processors.tiny import SIGNER, TRUSTED, write_bundle

brokers = pytest.mark.brokers
TOPIC, COMPARISONS = KafkaTopic.MODELS.value, KafkaTopic.COMPARISONS.value


@pytest.fixture
def state(kafka: Kafka, state_dir: Path, tmp_path: Path) -> Iterator[Path]:
    """Yield the state folder of a system with a running Kafka, started with a bundle of version 1."""
    specs = pointillist_topics()
    asyncio.run(create_topics(kafka.bootstrap, {name: specs[name] for name in (TOPIC, COMPARISONS)}))
    write_json(state_dir / "roles.json", {"kafka": {"listen": kafka.bootstrap}})
    own = bundle(tmp_path, "1")
    write_json(state_dir / "run.json", {"started_ms": 1_700_000_000_000, "bundle": str(own)})
    yield state_dir
    asyncio.run(_remove(kafka.bootstrap, TOPIC, COMPARISONS))


async def _remove(bootstrap: str, *topics: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_topics(list(topics))
    await admin.close()


def bundle(folder: Path, version: str, classes: str = "stop", **options: int) -> Path:
    made = write_bundle(folder / f"bundle-{version}", **options)  # type: ignore[arg-type]
    settings = made / "model.toml"
    text = settings.read_text().replace('version = "1"', f'version = "{version}"')
    settings.write_text(text.replace("'stop'", f"'{classes}'"))
    return made


def run(*arguments: object) -> Result:
    result = run_command("model", *arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def listed(state: Path) -> list[tuple[str, str]]:
    rows = json.loads(run("list", "--state", state, "--json").stdout)
    return [(row["model_id"].split("+")[0], row["state"]) for row in rows]


def live(state: Path) -> str | None:
    name = json.loads(run("status", "--state", state, "--json").stdout)["live"]
    return name.split("+")[0] if name else None


@brokers
@pytest.mark.parametrize("command", ["publish", "candidate"])
def test_a_bundle_that_changes_while_it_is_checked_is_published_as_checked(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    run("publish", bundle(tmp_path, "2"), "--state", state)
    third, check = bundle(tmp_path, "3"), infra.cli.model.checked
    settings = (third / "model.toml").read_text()

    def attacked(folder: Path) -> str:
        found = check(folder)
        (third / "model.toml").write_text(settings + "# changed meanwhile")
        return found

    for module in (infra.cli.model, infra.cli.model_rollout):
        monkeypatch.setattr(module, "checked", attacked)
    run(command, third, "--state", state)
    stored = [each.read_text() for each in (state / "models").rglob("model.toml")]
    assert settings in stored
    assert not any("changed meanwhile" in each for each in stored)


def test_an_error_of_a_copied_bundle_names_the_folder(tmp_path: Path) -> None:
    folder = bundle(tmp_path, "1")
    with pytest.raises(BundleError, match=f"^{folder}/weights: expected"), private_copy(folder) as copy:  # noqa: PT012
        assert copy != folder
        raise BundleError(f"{copy}/weights: expected another file")


@brokers
def test_published_models_are_withdrawn_down_to_the_first_bundle_of_the_system(state: Path, tmp_path: Path) -> None:
    assert listed(state) == []
    assert live(state) is None
    with pytest.raises(ConfigError, match="model: expected a published model"):
        run("rollback", "--state", state)
    second, third = bundle(tmp_path, "2"), bundle(tmp_path, "3")
    done = run("publish", second, "--state", state)
    assert done.exit_code == 0
    assert "no processor runs" in done.stdout
    run("publish", third, "--state", state)
    assert "is live already" in run("publish", third, "--state", state).stdout
    assert listed(state) == [("tiny@3", "live"), ("tiny@2", "before"), ("tiny@1", "before")]
    shutil.rmtree(second)
    with pytest.raises(ConfigError, match="--only: expected the model tiny@9, got tiny@3"):
        run("rollback", "--only", "tiny@9", "--state", state)
    shown = json.loads(run("list", "--json", "--state", state).stdout)[0]["model_id"]
    run("rollback", "--only", shown, "--state", state)
    assert listed(state) == [("tiny@3", "withdrawn"), ("tiny@2", "live"), ("tiny@1", "before")]
    assert "live is tiny@1" in run("rollback", "--state", state).stdout
    run("publish", third, "--state", state)
    assert live(state) == "tiny@3"
    run("rollback", "--state", state)
    assert live(state) == "tiny@1"
    run("rollback", "--own", "--state", state)
    assert live(state) is None
    assert {row_state for _, row_state in listed(state)} == {"withdrawn"}
    stored = {path.name.split("-")[0] for path in (state / "models").iterdir()}
    assert stored == {"tiny"}
    assert len(list((state / "models").iterdir())) == 3


@brokers
def test_up_names_the_published_model_that_is_served_in_place_of_its_bundle(
    kafka: Kafka, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    street, second = bundle(tmp_path, "street"), bundle(tmp_path, "2")
    lines: list[str] = []
    up: Any = _Run.__new__(_Run)
    up._settings, up._layout = UpSettings(bundle=street), Layout(state)
    up._kafka = SimpleNamespace(access=lambda role: kafka.bootstrap)
    up._live = SimpleNamespace(print_line=lines.append)
    up.note_published_model(Path("street"))
    run("publish", street, "--state", state)
    up.note_published_model(Path("street"))
    assert lines == []
    run("publish", second, "--state", state)
    up.note_published_model(Path("street"))
    (line,) = lines
    assert re.match(r"--bundle: street is not served, because the published model tiny@2\+\w+ is live\. ", line)
    assert f"run `pointillist model rollback --own --state {state}`" in line
    run("rollback", "--own", "--state", state)
    up.note_published_model(Path("street"))
    assert lines == [line]


@brokers
def test_a_new_signer_of_a_state_folder_replaces_the_list_of_a_stolen_one(state: Path, tmp_path: Path) -> None:
    second = bundle(tmp_path, "2")
    run("publish", second, "--state", state)
    layout = Layout(state)
    layout.signer_file.rename(tmp_path / "stolen.key")
    others = [line for line in layout.trusted.read_text().splitlines() if not line.endswith(" own")]
    layout.trusted.write_text("".join(f"{line}\n" for line in others))
    done = run("publish", second, "--state", state)
    assert "the newest list of models is not accepted, and will be replaced" in done.stderr
    assert live(state) == "tiny@2"
    assert "is live already" in run("publish", second, "--state", state).stdout


@brokers
def test_a_broken_bundle_is_rejected_before_anything_is_sent(state: Path, tmp_path: Path) -> None:
    broken = bundle(tmp_path, "2")
    (broken / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(BundleError, match="expected a safetensors file"):
        run("publish", broken, "--state", state)
    assert listed(state) == []
    assert not (state / "models").exists()


@brokers
@pytest.mark.parametrize(
    ("other", "message"),
    [({"classes": "halt"}, "classes"), ({"overlays": 0}, "STRIP.* `pointillist bundle calibrate DIR")],
)
def test_a_bundle_with_other_classes_or_without_strip_needs_force(
    state: Path, tmp_path: Path, other: dict[str, str | int], message: str
) -> None:
    changed = bundle(tmp_path, "2", **other)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=message):
        run("publish", changed, "--state", state)
    assert listed(state) == []
    run("publish", changed, "--state", state, "--force")
    assert live(state) == "tiny@2"


@brokers
def test_other_classes_replace_those_of_the_live_model_with_an_option(state: Path, tmp_path: Path) -> None:
    changed = ("publish", bundle(tmp_path, "2", classes="halt"), "--state", state)
    with pytest.raises(BundleError, match="--other-classes"):
        run(*changed)
    run(*changed, "--other-classes")
    assert live(state) == "tiny@2"
    again = bundle(tmp_path, "3", classes="turn", overlays=0)
    with pytest.raises(BundleError, match="STRIP"):
        run("candidate", again, "--state", state, "--other-classes")
    candidate = ("candidate", bundle(tmp_path, "4", classes="turn"), "--state", state, "--other-classes")
    run(*candidate)
    assert json.loads(run("status", "--state", state, "--json").stdout)["rollout"]["slot"] == "shadow"


@brokers
def test_a_candidate_with_other_classes_is_never_promoted_by_rule(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.cli.model_rollout, "_scanned", lambda *_: ScanResult({}, {}))
    run("publish", bundle(tmp_path, "2"), "--state", state)
    candidate = ("candidate", bundle(tmp_path, "3", classes="turn"), "--state", state, "--clean", "clean", "--by-rule")
    for permitted in ("--other-classes", "--force"):
        with pytest.raises(ConfigError, match="whose verdicts the gate cannot compare"):
            run(*candidate, permitted)


@brokers
def test_promotion_by_rule_needs_a_live_model_to_compare_the_classes_with(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.cli.model_rollout, "_scanned", lambda *_: ScanResult({}, {}))
    candidate = ("candidate", bundle(tmp_path, "3"), "--state", state, "--clean", "clean")
    run("publish", bundle(tmp_path, "2"), "--state", state)
    run("rollback", "--own", "--state", state)
    with pytest.raises(ConfigError, match="--by-rule: expected a live model in the list, got none"):
        run(*candidate, "--by-rule")
    run(*candidate)
    assert json.loads(run("status", "--state", state, "--json").stdout)["rollout"]["slot"] == "shadow"


@brokers
def test_promotion_by_rule_compares_with_the_bundle_of_the_system_if_no_model_is_published(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.cli.model_rollout, "_scanned", lambda *_: ScanResult({}, {}))
    run("candidate", bundle(tmp_path, "3"), "--state", state, "--clean", "clean", "--by-rule")
    assert listed(state) == [("tiny@1", "live")]


@brokers
def test_the_live_model_keeps_its_files_after_many_withdrawals(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.cli.model, "checked", lambda folder: "tiny")
    monkeypatch.setattr("schemas.messages.models.MAX_PUBLISHED", 2)
    for version in ("2", "3"):
        run("publish", bundle(tmp_path, version), "--state", state)
        run("rollback", "--state", state)
    rows = json.loads(run("list", "--state", state, "--json").stdout)
    assert [row["state"] for row in rows] == ["withdrawn", "live"]
    assert {Path(row["location"].removeprefix("file://")) for row in rows} == set((state / "models").iterdir())


@brokers
def test_without_a_state_folder_the_store_signer_and_trusted_signers_are_options(
    kafka: Kafka, state: Path, tmp_path: Path
) -> None:
    made, store, place = bundle(tmp_path, "2"), ("--store", tmp_path / "store"), ("--kafka", kafka.bootstrap)
    with pytest.raises(ConfigError, match="--store"):
        run("publish", made, *place)
    with pytest.raises(ConfigError, match=r"--signer is missing: .*or --state"):
        run("publish", made, *place, *store)
    ada = init(tmp_path, "ada")
    run("publish", made, *place, *store, "--signer", ada.with_suffix(".key"))
    (stored,) = (tmp_path / "store").iterdir()
    rows = json.loads(run("list", *place, "--trust", ada.with_suffix(".pub"), "--json").stdout)
    assert [row["location"] for row in rows] == [f"file://{stored}"]
    unseen = run("list", *place, "--json")
    assert json.loads(unseen.stdout) == []
    assert "is not accepted, the one before it is in force" in unseen.stderr
    assert "who is not trusted" in unseen.stderr
    # A system with other trusted signers ignores the list, and may replace it.
    assert "who is not trusted" in json.loads(run("status", "--state", state, "--json").stdout)["error"]
    assert live(state) is None
    again = run("publish", bundle(tmp_path, "3"), "--state", state)
    assert "the newest list of models is not accepted, and will be replaced" in again.output
    assert live(state) == "tiny@3"


@brokers
def test_code_of_a_bundle_runs_only_with_permission(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_ALLOW_CODE", "")
    made = bundle(tmp_path, "2")
    table = made / "model.toml"
    table.write_text(table.read_text().replace("tests.processors.tiny:network", "network.py:network"))
    (made / "network.py").write_text("from tests.processors.tiny import network\n")
    with pytest.raises(BundleError, match=r"the factory network.py:network: expected permission .* give --allow-code"):
        run("publish", made, "--state", state)
    assert listed(state) == []
    run("publish", made, "--state", state, "--allow-code")
    assert live(state) == "tiny@2"


def test_a_signer_is_created_once_and_only_its_owner_reads_the_private_key(tmp_path: Path) -> None:
    ada = init(tmp_path, "ada")
    private, public = ada.with_suffix(".key"), ada.with_suffix(".pub")
    assert private.stat().st_mode & 0o777 == 0o600
    assert (
        TrustedSigners.read(public).verify(
            SignaturePurpose.BUNDLE,
            b"x",
            Signer.read(private).public,
            Signer.read(private).sign(SignaturePurpose.BUNDLE, b"x"),
        )
        == "ada"
    )
    kept = private.read_bytes(), public.read_bytes()
    with pytest.raises(ConfigError, match=r"ada\.key: expected no signer of that name"):
        init(tmp_path, "ada")
    with pytest.raises(ConfigError, match="1 to 64 letters, digits"):
        init(tmp_path, "two words")
    assert (private.read_bytes(), public.read_bytes()) == kept
    private.unlink()
    with pytest.raises(ConfigError, match=r"ada\.pub: expected no signer of that name"):
        init(tmp_path, "ada")
    assert public.read_bytes() == kept[1]
    assert not private.exists()


def test_a_signer_joins_a_file_of_trusted_signers_without_a_final_newline(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.trusted.write_text(SIGNER.line("ada"))
    own = layout.signer()
    assert TrustedSigners.read(layout.trusted).publics() == (SIGNER.public, own.public)


@pytest.mark.parametrize(
    "arguments",
    [
        ("model", "status", "--kafka", "127.0.0.1:1"),
        ("model", "rollback", "--kafka", "127.0.0.1:1"),
        ("process", "--kafka", "127.0.0.1:1", "--bundle", "scene"),
        ("monitor", "--kafka", "127.0.0.1:1", "--mqtt", "127.0.0.1:1"),
    ],
)
def test_a_missing_state_folder_is_rejected_and_not_created(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    absent = tmp_path / "typo"
    line = refusal(run_command(*arguments, "--state", absent))
    assert line.startswith(f"--state: expected a state folder of `pointillist up`, got none in {absent}. ")
    assert not absent.exists()


def init(folder: Path, name: str) -> Path:
    done = run_command("signer", "init", name, "--folder", folder)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert "PRIVATE" not in done.output
    assert done.output.strip() == (folder / f"{name}.pub").read_text().strip()
    return folder / name


def test_the_default_state_folder_is_used_without_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("rollback", "--own"), ("list",), ("dismiss",)):
        with pytest.raises(
            StateError, match=r"^--state: expected a state folder of .*, got none in .*/\.pointillist\."
        ):
            run(*words)
    folder = tmp_path / ".pointillist"
    folder.mkdir()
    write_json(folder / "roles.json", {"kafka": {"listen": "127.0.0.1:9"}})
    with pytest.raises(BrokerError, match=r"Kafka broker at 127\.0\.0\.1:9"):
        run("rollback", "--own", "--connect-timeout-s", "0.2")


def test_an_unreachable_kafka_is_one_error(tmp_path: Path) -> None:
    made, store, key = bundle(tmp_path, "2"), tmp_path / "store", init(tmp_path, "ada").with_suffix(".key")
    with pytest.raises(BrokerError, match=r"Kafka broker at 127\.0\.0\.1:9"):
        run(
            "publish", made, "--kafka", "127.0.0.1:9", "--store", store, "--signer", key, "--connect-timeout-s", "0.2"
        )  # fmt: skip
    assert not store.exists()


@brokers
async def test_a_list_of_models_that_kafka_rejects_is_an_error(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic = await kafka_topics(config={"max.message.bytes": "10"})
    async with ModelsTopic(kafka.bootstrap, TRUSTED, SIGNER, topic) as models:
        with pytest.raises(BrokerError, match="MessageSizeTooLarge"):
            await models.write(Models(published=[Model(model_id="a-1")]))
        assert models.models == Models()


@brokers
def test_a_candidate_is_promoted_only_by_a_passed_gate_or_force_and_steps_are_in_the_audit_log(
    state: Path, tmp_path: Path
) -> None:
    run("publish", bundle(tmp_path, "2"), "--state", state)
    run("candidate", bundle(tmp_path, "3"), "--state", state, "--frames", "0.5")
    shown = json.loads(run("status", "--state", state, "--json").stdout)
    rollout = shown["rollout"]
    assert (rollout["slot"], rollout["frames"], rollout["outcome"]) == ("shadow", 0.5, "not assessed")
    assert live(state) == "tiny@2"
    with pytest.raises(ConfigError, match="all rules passed"):
        run("promote", "--state", state)
    run("promote", "--state", state, "--force")
    assert live(state) == "tiny@3"
    with pytest.raises(ConfigError, match="expected a rollout"):
        run("promote", "--state", state, "--force")
    noted = [(line.who, line.what, line.outcome) for line in Store(Layout(state).console_url).newest_operations()]
    assert noted == [(OWNER, "promote", "live"), (OWNER, "candidate", "begun"), (OWNER, "publish", "live")]


@brokers
def test_dismissing_a_candidate_keeps_the_live_model(state: Path, tmp_path: Path) -> None:
    run("publish", bundle(tmp_path, "2"), "--state", state)
    run("candidate", bundle(tmp_path, "3"), "--state", state, "--slot", "canary", "--force")
    run("dismiss", "--state", state)
    assert live(state) == "tiny@2"
    assert json.loads(run("status", "--state", state, "--json").stdout)["rollout"] is None


@brokers
async def test_kafka_without_the_topic_of_comparisons_is_an_error(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic = await kafka_topics()
    async with ModelsTopic(kafka.bootstrap, TRUSTED, SIGNER, topic) as models:
        await models.require(topic)
        with pytest.raises(BrokerError, match=f"expected the topic {topic}-other, got none"):
            await models.require(f"{topic}-other")


@brokers
def test_a_suspect_bundle_starts_a_rollout_only_by_force_and_never_by_rule(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.cli.model_rollout, "_scanned", lambda *_: ScanResult({}, {"moving": 9.0}))
    run("publish", bundle(tmp_path, "2"), "--state", state)
    candidate = ("candidate", bundle(tmp_path, "3"), "--state", state, "--clean", "clean.npz")
    with pytest.raises(BundleError, match="expected a backdoor scan without a trigger"):
        run(*candidate)
    with pytest.raises(ConfigError, match="--by-rule: expected a backdoor scan without a trigger, got a trigger"):
        run(*candidate, "--force", "--by-rule")
    run(*candidate, "--force")
    shown = json.loads(run("status", "--state", state, "--json").stdout)
    assert shown["rollout"]["slot"] == "shadow"
    with pytest.raises(ConfigError, match="expected an assessment"):
        run("promote", "--state", state, "--to", "canary")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--by-rule",), "--clean is missing"),
        (("--slot", "live"), "--slot: expected shadow or canary"),
        (("--slot", "canary"), "a backdoor scan before a canary"),
        (("--frames", "0"), "--frames: expected a share above 0"),
        (("--cameras", "0"), "--cameras: expected a share above 0"),
    ],
)
def test_a_rollout_that_could_skip_the_scan_or_all_frames_is_rejected(
    state_dir: Path, tmp_path: Path, options: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        run("candidate", bundle(tmp_path, "3"), "--state", state_dir, "--kafka", "127.0.0.1:1", *options)
