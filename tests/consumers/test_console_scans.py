"""The backdoor scan of a candidate from the console: its clean pictures, and the reasons why there is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from consumers.console.jobs import jobs as jobs_module
from consumers.console.jobs import scans
from consumers.console.jobs.bundles import BundleChoice, operator_bundles
from consumers.console.jobs.rows import Job, JobKind, JobState
from consumers.console.jobs.scans import scan_source
from lab.repair.inputs import FEWEST_CLEAN, FEWEST_OTHERS
from lab.repair.scan import FEWEST_CLASSES
from tests.consumers.console_rig import jpeg_scene
from tests.consumers.jobs_rig import JobsRig, fill_job_folder
from tests.consumers.recorder_rig import CAMERA, Rig

SICK = "bundle-sick"
PUBLISHES = ["--signer", "key", "--store", "models"]


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "POLL_INTERVAL_S", 0.02)


@pytest_asyncio.fixture
async def rig(tmp_path: Path, recorder: Rig) -> AsyncIterator[JobsRig]:
    fill_job_folder(tmp_path / "jobs")
    jobs_rig = JobsRig(tmp_path)
    yield jobs_rig
    await jobs_rig.close()


def label_frames(rig: JobsRig, counts: Mapping[str, int]) -> None:
    """Label this many frames of each class."""
    labelled_frames = rig.console.context.labelled_frames
    assert labelled_frames is not None
    jpeg = jpeg_scene()
    for name, count in counts.items():
        for seq in range(count):
            labelled_frames.keep((CAMERA, hash(name) % 2**32, seq), jpeg, "new", "car", 0.9, name, "ada")


async def run_job(rig: JobsRig, browser: httpx2.AsyncClient, path: str, **fields: str) -> Job:
    answer = await browser.post(path, data=rig.form(**fields))
    assert answer.status_code == 303, answer.text
    job = await rig.finished_job()
    assert job.state is JobState.DONE, job.outcome
    return job


async def test_a_taught_bundle_is_scanned_with_the_labels_of_its_classes(rig: JobsRig) -> None:
    label_frames(rig, {"bar": 20, "disc": 20, "nobody": 20})
    async with rig.browser() as browser:
        taught = await run_job(rig, browser, "/teach/train", name="shapes")
        assert "with your labelled frames" in (await browser.get(f"/jobs/{taught.job_id}")).text
        label_frames(rig, {"later": 3})
        job = await run_job(rig, browser, "/jobs/candidate", bundle=f"job-{taught.job_id}")
        published = await run_job(rig, browser, "/jobs/publish", bundle=f"job-{taught.job_id}")
    runs = rig.folder / "jobs" / "runs"
    out, labels = str(runs / taught.job_id / "out"), runs / job.job_id / "labels"
    assert rig.arguments(job) == [
        "model", "candidate", out, "--clean", str(labels), "--progress", "--other-classes", *PUBLISHES,
    ]  # fmt: skip
    lines = (runs / job.job_id / "log").read_text().splitlines()
    assert {"clean": {"bar": 20, "disc": 20, "nobody": 20}} in [json.loads(each) for each in lines if each[0] == "{"]
    assert not labels.exists(), "only sealed labels are left"
    assert rig.arguments(published) == ["model", "publish", out, "--other-classes", *PUBLISHES]


async def test_a_bundle_that_cannot_be_scanned_shows_the_reason_and_needs_a_person_to_promote_it(rig: JobsRig) -> None:
    label_frames(rig, {"nobody": 30, "person": 30})
    async with rig.browser() as browser:
        taught = await run_job(rig, browser, "/teach/train", name="corridor")
        shown = (await browser.get(f"/jobs/{taught.job_id}")).text
        assert "no backdoor scan: a scan compares at least 3 classes. Only a person can then promote it" in shown
        bundle = f"job-{taught.job_id}"
        rejected = await browser.post("/jobs/candidate", data=rig.form(bundle=bundle, by_rule="yes"))
        assert rejected.status_code == 400
        assert "by_rule: expected pictures for a backdoor scan: a scan compares" in rejected.text
        job = await run_job(rig, browser, "/jobs/candidate", bundle=bundle)
    assert "--clean" not in rig.arguments(job)


async def test_the_operators_bundle_is_scanned_with_the_operators_pictures(rig: JobsRig) -> None:
    async with rig.browser() as browser:
        assert "No backdoor scan" not in (await browser.get("/models")).text
        job = await run_job(rig, browser, "/jobs/candidate", bundle=SICK, by_rule="yes")
        assert job.kind is JobKind.CANDIDATE_BY_RULE
        bundle, clean = rig.folder / "jobs" / "bundles" / "sick", rig.folder / "jobs" / "clean.npz"
        assert rig.arguments(job) == [
            "model", "candidate", str(bundle), "--clean", str(clean), "--progress", "--by-rule", *PUBLISHES,
        ]  # fmt: skip
        clean.unlink()
        shown = (await browser.get("/models")).text
        assert "No backdoor scan of sick, well: put clean labelled pictures as clean.npz into the jobs folder" in shown
        job = await run_job(rig, browser, "/jobs/candidate", bundle=SICK)
    assert rig.arguments(job) == ["model", "candidate", str(bundle), *PUBLISHES]


@pytest.mark.parametrize(
    ("labels", "is_taught", "lacks"),
    [
        ({"a": 20, "b": 20, "c": 10}, True, ""),
        ({"a": 20, "b": 20, "c": 9}, True, "at least 50 frames"),
        ({"a": 44, "b": 5, "c": 4}, True, "not of the largest class"),
        ({"a": 50, "b": 50}, True, "at least 50 frames"),
        ({"a": 50, "b": 50}, False, "clean.npz"),
        ({}, False, "clean.npz"),
    ],
)
def test_labels_are_used_for_a_scan_if_there_are_enough(
    tmp_path: Path, labels: Mapping[str, int], is_taught: bool, lacks: str
) -> None:
    choice = BundleChoice("job-1", "taught", tmp_path, "taught@1", ("a", "b", "c"), is_taught)
    found = scan_source(choice, labels, tmp_path / "clean.npz")
    assert lacks in found.lack
    assert found.exists == (not lacks) == found.labels


def test_a_few_labels_do_not_replace_the_operators_pictures(tmp_path: Path) -> None:
    (tmp_path / "clean.npz").touch()
    own = BundleChoice("bundle-own", "own", tmp_path, "own@1", ("a", "b", "c"))
    assert scan_source(own, {"a": 1, "b": 2, "c": 1}, tmp_path / "clean.npz").file is not None


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_network_without_gradients_is_not_scanned(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bundles" / "graph").mkdir(parents=True)
    (tmp_path / "clean.npz").touch()
    table = f'name = "graph"\nversion = "1"\nformat = "{kind}"\nclasses = ["a", "b", "c"]\n'
    (tmp_path / "bundles" / "graph" / "model.toml").write_text(table)
    (graph,) = operator_bundles(tmp_path / "bundles")
    assert f"a network of the format {kind}" in scan_source(graph, {}, tmp_path / "clean.npz").lack


def test_the_operators_pictures_are_not_used_for_a_taught_bundle(tmp_path: Path) -> None:
    (tmp_path / "clean.npz").touch()
    taught = BundleChoice("job-1", "taught", tmp_path, "taught@1", ("a", "b", "c"), is_taught=True)
    assert scan_source(taught, {"a": 9}, tmp_path / "clean.npz").file is None


def test_the_bounds_of_the_console_equal_those_of_the_scan() -> None:
    bounds = (scans.FEWEST_PICTURES, scans.FEWEST_CLASSES, scans.FEWEST_OTHERS)
    assert bounds == (FEWEST_CLEAN, FEWEST_CLASSES, FEWEST_OTHERS)
