"""The console's page of models: published, live, served and rolled out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.recorder_store import RecorderStore
from consumers.database.comparisons import save_comparisons, save_rollout
from schemas.identity import CameraId
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.models import LIVE_KEY, bundle_digest, seal
from schemas.messages.models_records import ModelsRecords
from schemas.messages.server_messages import seal_difference
from schemas.pointillist_pb2 import (
    FAILED,
    SHADOW,
    Answer,
    Assessment,
    BundleFile,
    Comparison,
    Drift,
    Model,
    Models,
    Rollout,
    ServedModel,
)
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import CAMERA, KEYS

OURS, STRANGER = Signer.new(), Signer.new()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ConsoleRig]:
    console = ConsoleRig(tmp_path)
    console.context.models = ModelsRecords(lambda: TrustedSigners({OURS.public: "ours"}))
    yield console
    console.close()


def listed(*names: str, changed_ms: int) -> Models:
    made = []
    for name in names:
        files = [BundleFile(name=f"{name}.toml", size=1, sha256=bytes(32))]
        made.append(Model(model_id=name, digest=bundle_digest(files), files=files, published_ms=5))
    return Models(published=made, changed_ms=changed_ms)


def test_models_of_trusted_signers_and_the_status_of_processors_are_shown(rig: ConsoleRig) -> None:
    assert rig.context.models is not None
    rig.context.models.apply_record(LIVE_KEY, seal(listed("cured", "before", changed_ms=2), OURS))
    rig.context.models.apply_record(b"processor/p-1", ServedModel(model_id="cured", digest="1").SerializeToString())
    refuses = ServedModel(model_id="own", error="it has other classes").SerializeToString()
    rig.context.models.apply_record(b"processor/p-2", refuses)
    page = rig.browser().get("/models").text
    assert page.count("live</span>") == 1
    assert "it has other classes" in page
    answer = rig.browser().get("/api/v1/models").json()
    assert (answer["live"], answer["served"]["p-2"]["refuses"]) == ("cured", "it has other classes")
    assert [each["model"] for each in answer["published"]] == ["cured", "before"]
    rig.context.models.apply_record(b"processor/p-2", None)
    assert "it has other classes" not in rig.browser().get("/models").text


def test_drift_is_shown_at_each_stage_of_its_measurement(rig: ConsoleRig) -> None:
    assert rig.context.models is not None
    for name, drift in {
        "p-1": None, "p-2": Drift(windows=1), "p-3": Drift(windows=9, pictures=0.4, answers=0.2),
        "p-4": Drift(windows=3, pictures=2.5, answers=0.2),
    }.items():  # fmt: skip
        served = ServedModel(model_id="cured", drift=drift).SerializeToString()
        rig.context.models.apply_record(f"processor/{name}".encode(), served)
    page = rig.browser().get("/models").text
    shown = [
        "not measured: the bundle has no [drift] table", "collecting frames, window 2 of 3",
        "pictures 0.40, answers 0.20 of the limit<", "pictures 2.50, answers 0.20 of the limit; drift<",
    ]  # fmt: skip
    assert [words for words in shown if words not in page] == []


def test_a_list_of_an_untrusted_signer_is_ignored_and_reported(rig: ConsoleRig) -> None:
    assert rig.context.models is not None
    rig.context.models.apply_record(LIVE_KEY, seal(listed("cured", changed_ms=2), OURS))
    rig.context.models.apply_record(LIVE_KEY, seal(listed("evil", changed_ms=3), STRANGER))
    page = rig.browser().get("/models").text
    assert "evil" not in page
    assert "who is not trusted" in page


def begin_rollout(rig: ConsoleRig, recorder: RecorderStore, *, differs: bool) -> None:
    """List a rollout as shadow, with one comparison and the gate's record."""
    assert rig.context.models is not None
    made = listed("live", changed_ms=2)
    made.rollout.CopyFrom(
        Rollout(candidate=listed("next", changed_ms=1).published[0], begun_ms=5, slot=SHADOW, frames=0.2, cameras=0.1)
    )
    rig.context.models.apply_record(LIVE_KEY, seal(made, OURS))
    comparison = Comparison(
        boot_id=7,
        seq=3,
        captured_ms=1000,
        begun_ms=5,
        digest=made.rollout.candidate.digest,
        live=Answer(class_id=1, class_name="stop", confidence=0.9),
        candidate=Answer(class_id=2 if differs else 1, class_name="go" if differs else "stop", confidence=0.5),
        picture=b"a JPEG",
    )
    seal_difference(comparison, CameraId(CAMERA), KEYS)
    frames = '{"name": "frames", "finding": "fails", "value": 0, "low": null, "high": null, "limit": 1, "count": 0'
    report = f'{{"pairs": 16, "rules": [{frames}, "reason": "no frame was compared"}}, {{"name": "agreement"'
    report += ', "finding": "fails", "value": 0.5, "low": 0.2, "high": 0.7'
    assessment = Assessment(
        digest=comparison.digest,
        begun_ms=5,
        slot=SHADOW,
        outcome=FAILED,
        report=f'{report}, "limit": 0.8, "count": 9}}]}}',
    )
    with recorder.store.engine.begin() as connection:
        save_comparisons(connection, [(CAMERA, comparison)], 1)
        save_rollout(connection, assessment, "next")


def test_a_rollout_is_shown_with_its_rules_and_the_frames_on_which_the_models_differ(
    rig: ConsoleRig, recorder: RecorderStore
) -> None:
    begin_rollout(rig, recorder, differs=True)
    page = rig.browser().get("/models").text
    assert "next</strong> is the candidate, as shadow" in page
    assert "agreement" in page
    assert "0.2 to 0.7" in page
    assert "fails</span> no frame was compared<" in page
    picture = f"/models/differences/5/7/3/{CAMERA}.jpg"
    assert picture in page
    found = rig.browser().get(picture)
    assert (found.content, found.headers["content-type"]) == (b"a JPEG", "image/jpeg")
    assert rig.browser().get(f"/models/differences/5/7/4/{CAMERA}.jpg").status_code == 404


def test_frames_on_which_the_models_agree_are_not_shown(rig: ConsoleRig, recorder: RecorderStore) -> None:
    begin_rollout(rig, recorder, differs=False)
    assert "Frames on which they differ" not in rig.browser().get("/models").text
