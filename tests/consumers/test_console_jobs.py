"""Jobs from the console: repair, publish and roll back as a child of the command line."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from consumers.console.api.routes import ROOT, document
from consumers.console.jobs import jobs as jobs_module
from consumers.console.jobs.bundles import operator_bundles
from consumers.console.jobs.output import PICTURES_FOLDER, Progress, last_message, progress_of, report_of, tail_of
from consumers.console.jobs.rows import JobKind, JobState
from infra.local.process import ProcessId
from lab.repair.report import PICTURES
from schemas.errors import BrokerError, MalformedError, StateError
from schemas.evidence.flagged_pictures import open_flagged, seal_flagged
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.models import LIVE_KEY, seal
from schemas.messages.models_records import ModelsRecords
from tests.consumers.console_rig import CONSOLE_KEYS, OWNER, ConsoleRig, jpeg_scene
from tests.consumers.jobs_rig import QUARANTINED, JobsRig, fill_job_folder, quarantine_frame
from tests.consumers.recorder_rig import CAMERA, PNG, Rig
from tests.consumers.test_console_models import listed
from tests.waiting import until

POSTS = ("repair", "publish", "rollback", f"{'0' * 16}/cancel", f"{'0' * 16}/continue")
PASSWORD = "a long password"
SICK = "bundle-sick"


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "POLL_INTERVAL_S", 0.02)


@pytest_asyncio.fixture
async def rig(tmp_path: Path, recorder: Rig) -> AsyncIterator[JobsRig]:
    quarantine_frame(recorder, tmp_path)
    fill_job_folder(tmp_path / "jobs")
    jobs_rig = JobsRig(tmp_path)
    yield jobs_rig
    await jobs_rig.close()


async def start(rig: JobsRig, browser: httpx2.AsyncClient, what: str = "repair", **fields: str) -> str:
    """Start a job by the form of a page. Return the path of its page."""
    answer = await browser.post(f"/jobs/{what}", data=rig.form(**fields))
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


async def test_the_page_of_a_repair_shows_its_progress_its_report_and_how_to_publish(rig: JobsRig) -> None:
    async with rig.browser() as browser:
        offer = (await browser.get("/quarantine")).text
        assert offer.count('<option value="bundle-') == 2
        assert f"{CAMERA} (1)" in offer
        rig.mode = "hangs"
        page = await start(rig, browser, bundle=SICK, camera=CAMERA)
        await until(lambda: rig.jobs.progress(page[-16:]) == Progress("unlearn", 3, 10))
        shown = (await browser.get(page)).text
        assert 'max="10" value="3"' in shown
        assert "Cancel</button>" in shown
        await browser.post(f"{page}/cancel", data=rig.form())
        assert (await rig.finished_job()).state is JobState.CANCELLED
        rig.mode = "done"
        assert await start(rig, browser, f"{page[-16:]}/continue") == page
        job = await rig.finished_job()
        shown = (await browser.get(page)).text
    assert (job.state, job.kind, job.who, job.camera) == (JobState.DONE, JobKind.REPAIR, OWNER, CAMERA)
    for words in ("95.1 %", "94.8 %", "99.8 %", "1.2 %", "48 of 50", "49 of 50", "Publish the repaired bundle"):
        assert words in shown, words
    assert f"{page}/stamped.png" in shown
    runs = rig.folder / "jobs" / "runs" / job.job_id
    assert rig.arguments(job) == [
        "lab", "repair", "--bundle", str(rig.folder / "jobs" / "bundles" / "sick"), "--clean",
        str(rig.folder / "jobs" / "clean.npz"), "--quarantine", str(runs / "quarantine"), "--out", str(runs / "out"),
        "--json", str(runs / "figures.json"), "--progress",
    ]  # fmt: skip
    noted = [(each.who, each.what, each.outcome) for each in rig.console.context.store.newest_operations()][::-1]
    assert noted == [
        (OWNER, "repair", "started"),
        (OWNER, "cancel", "cancellation requested"),
        (OWNER, "repair", "cancelled: stopped in phase unlearn"),
        (OWNER, "repair", "started"),
        (OWNER, "repair", "done"),
    ]


async def test_a_repair_gets_sealed_frames_and_a_secret_that_opens_only_them(rig: JobsRig) -> None:
    async with rig.browser() as browser:
        await start(rig, browser, bundle=SICK)
        job = await rig.finished_job()
        assert rig.variables.keys() == {"POINTILLIST_ROLE_SECRET"}
        own = KeyRing(Roots.from_export(rig.variables["POINTILLIST_ROLE_SECRET"], Role.CONSOLE)).previews
        await start(rig, browser, "publish", bundle=f"job-{job.job_id}")
        await rig.finished_job()
        assert rig.variables == {}
    (file,) = (each for each in (rig.folder / "jobs" / "runs" / job.job_id / "quarantine").rglob("*") if each.is_file())
    assert open_flagged(file.read_bytes(), QUARANTINED, own) == PNG
    with pytest.raises(MalformedError):
        open_flagged(file.read_bytes(), QUARANTINED, CONSOLE_KEYS.previews)
    with pytest.raises(MalformedError):
        open_flagged(seal_flagged(PNG, QUARANTINED, CONSOLE_KEYS.previews), QUARANTINED, own)


async def test_a_repaired_bundle_is_published_and_the_live_one_rolled_back(rig: JobsRig) -> None:
    signer = Signer.new()
    async with rig.browser() as browser:
        await start(rig, browser, bundle=SICK)
        repaired = await rig.finished_job()
        await start(rig, browser, "publish", bundle=f"job-{repaired.job_id}")
        published = await rig.finished_job()
        assert (published.state, published.outcome) == (JobState.DONE, "served after 0.4 s by processor-1")
        out = rig.folder / "jobs" / "runs" / repaired.job_id / "out"
        assert rig.arguments(published) == ["model", "publish", str(out), "--signer", "key", "--store", "models"]
        assert "Roll back the live model" in (await browser.get(f"/jobs/{published.job_id}")).text
        nothing = await browser.post("/jobs/rollback", data=rig.form())
        assert nothing.json() == {"error": "the live model is missing: publish one first"}
        rig.console.context.models = ModelsRecords(lambda: TrustedSigners({signer.public: "ours"}))
        rig.console.context.models.apply_record(LIVE_KEY, seal(listed("sick@1-repaired+0a", changed_ms=2), signer))
        shown = (await browser.get("/models")).text
        assert "Roll back the live model" in shown
        # The live bundle is preselected, since a repair usually starts from it.
        assert f'value="job-{repaired.job_id}" selected' in (await browser.get("/quarantine")).text
        assert 'name="model" value="sick@1-repaired+0a"' in shown
        ended = await browser.get(f"/jobs/{published.job_id}")
        assert (ended.status_code, 'name="model" value="sick@1-repaired+0a"' in ended.text) == (200, True)
        stale = await browser.post("/jobs/rollback", data=rig.form(model="sick@1+0b"))
        assert stale.json() == {
            "error": "model: expected sick@1+0b, as the page showed it, got sick@1-repaired+0a. Reload the page"
        }
        unnamed = await browser.post("/jobs/rollback", data=rig.form())
        assert unnamed.json() == {
            "error": "model: expected the model that this is about, now sick@1-repaired+0a, got none. Add it"
        }
        await start(rig, browser, "rollback", model="sick@1-repaired+0a")
        withdrawn = await rig.finished_job()
        assert rig.arguments(withdrawn) == ["model", "rollback", "--only", "sick@1-repaired+0a", "--signer", "key"]
        assert withdrawn.subject == "sick@1-repaired+0a"


async def test_a_taught_bundle_replaces_other_classes_also_after_repairs(rig: JobsRig) -> None:
    kept = rig.console.context.labelled_frames
    assert kept is not None
    for seq, label in enumerate(("open", "shut") * 5):
        kept.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9, label, OWNER)
    taught = await rig.jobs.teach(OWNER, "gate", thorough=False)
    await rig.finished_job()
    source = f"job-{taught.job_id}"
    async with rig.browser() as browser:
        for _ in range(2):
            await start(rig, browser, bundle=source)
            source = f"job-{(await rig.finished_job()).job_id}"
            await start(rig, browser, "publish", bundle=source)
            published = await rig.finished_job()
            out = rig.folder / "jobs" / "runs" / source.removeprefix("job-") / "out"
            assert rig.arguments(published)[:4] == ["model", "publish", str(out), "--other-classes"]


async def test_a_repair_that_loses_too_much_accuracy_has_a_report_and_cannot_be_published(rig: JobsRig) -> None:
    rig.mode = "lossy"
    async with rig.browser() as browser:
        page = await start(rig, browser, bundle=SICK)
        job = await rig.finished_job()
        assert (job.state, job.outcome) == (JobState.FAILED, "not published: it lost too much")
        shown = (await browser.get(page)).text
        assert "There is no bundle to publish" in shown
        assert "Publish the repaired bundle" not in shown
        rejected = await browser.post("/jobs/publish", data=rig.form(bundle=f"job-{job.job_id}"))
        assert rejected.status_code == 400


async def test_the_error_of_the_command_is_the_outcome_of_its_job(rig: JobsRig) -> None:
    rig.mode = "refuses"
    async with rig.browser() as browser:
        await start(rig, browser, bundle=SICK)
    assert (await rig.finished_job()).outcome == "expected at least 50 clean pictures, got 3"


async def test_the_outcome_of_a_killed_job_names_the_signal_and_not_its_last_line(rig: JobsRig) -> None:
    rig.mode = "killed"
    async with rig.browser() as browser:
        await start(rig, browser, bundle=SICK)
    job = await rig.finished_job()
    assert job.state is JobState.FAILED
    assert job.outcome == "killed by SIGKILL. The system does so if memory runs out."


@pytest.mark.parametrize(
    "bundle", ["", "sick", "/etc", "../jobs/bundles/sick", "bundle-../bundles/sick", "bundle-none"]
)
async def test_paths_never_come_from_a_browser(rig: JobsRig, bundle: str) -> None:
    async with rig.browser() as browser:
        for what in ("repair", "publish"):
            answer = await browser.post(f"/jobs/{what}", data=rig.form(bundle=bundle))
            assert answer.json() == {"error": "bundle: expected the id of a bundle in the jobs folder"}
        outside = await browser.post("/jobs/repair", data=rig.form(bundle=SICK, camera=f"../{CAMERA}"))
        assert outside.status_code == 400
        for path in ("/jobs/..%2f..", f"/jobs/{'f' * 16}", f"/jobs/{'f' * 16}/figures.png"):
            assert (await browser.get(path)).status_code == 404
    assert rig.jobs.newest() == []


async def test_a_job_without_its_line_in_the_audit_log_does_not_begin(
    rig: JobsRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StateError("console: expected a database that can be written, got a full disk")

    async with rig.browser() as browser:
        with monkeypatch.context() as patch:
            patch.setattr(rig.jobs, "_note", fail)
            assert (await browser.post("/jobs/repair", data=rig.form(bundle=SICK))).status_code == 409
        assert rig.jobs.newest() == []
        await start(rig, browser, bundle=SICK)
    assert (await rig.finished_job()).state is JobState.DONE


async def test_one_job_runs_at_a_time(rig: JobsRig) -> None:
    rig.mode = "hangs"
    async with rig.browser() as browser:
        requests = [browser.post("/jobs/repair", data=rig.form(bundle=SICK)) for _ in range(3)]
        answers = await asyncio.gather(*requests)
        assert sorted(each.status_code for each in answers) == [303, 409, 409]
        rejected = await browser.post("/jobs/publish", data=rig.form(bundle=SICK))
        assert rejected.json() == {"error": "job: expected no other job, repair is running. Try again later."}
    assert len(rig.jobs.newest()) == 1


async def test_a_job_that_exceeds_its_time_limit_is_stopped(tmp_path: Path, recorder: Rig) -> None:
    quarantine_frame(recorder, tmp_path)
    fill_job_folder(tmp_path / "jobs")
    rig = JobsRig(tmp_path, mode="hangs", settings={"repair_s": 0.6})
    async with rig.browser() as browser:
        await start(rig, browser, bundle=SICK)
    child = ProcessId.of(await rig.pid())
    job = await rig.finished_job()
    assert (job.state, job.outcome) == (JobState.FAILED, "stopped: it took longer than 0.6 s")
    assert child is None or not child.alive()
    await rig.close()


async def test_an_orderly_end_of_the_console_interrupts_its_job(rig: JobsRig) -> None:
    rig.mode = "hangs"
    async with rig.browser() as browser:
        await start(rig, browser, bundle=SICK)
    child = ProcessId.of(await rig.pid())
    assert child is not None
    frames = rig.folder / "jobs" / "runs" / rig.jobs.newest()[0].job_id / "quarantine"
    assert len(list(frames.iterdir())) == 1
    await rig.jobs.stop()
    assert not child.alive()
    assert rig.jobs.newest()[0].state is JobState.INTERRUPTED


async def test_after_a_crash_of_the_console_its_job_is_interrupted(rig: JobsRig, tmp_path: Path) -> None:
    rig.mode = "hangs"
    async with rig.browser() as browser:
        await start(rig, browser, bundle=SICK)
        await rig.pid()
    with pytest.raises(StateError, match="that no other console uses"):
        JobsRig(tmp_path)
    rig.jobs._launch = lambda arguments, log, variables: pytest.fail("no other job may start")
    rig.jobs.close = lambda: None  # type: ignore[method-assign]  # a crash releases only the locks
    os.close(rig.jobs._lock)
    assert rig.console.context.login_methods.owner is not None
    rig.console.context.login_methods.owner.close()
    restarted = JobsRig(tmp_path)
    job = restarted.jobs.newest()[0]
    assert (job.state, job.outcome) == (JobState.INTERRUPTED, "the console stopped, and the job with it")
    async with restarted.browser() as browser:
        shown = (await browser.get(f"/jobs/{job.job_id}")).text
        assert "Resume</button>" in shown
        assert "Cancel</button>" not in shown
    assert restarted.console.context.store.newest_operations()[0].outcome == "interrupted"
    await restarted.close()


@pytest.mark.parametrize("right", [Right.VIEWER, Right.OPERATOR])
async def test_only_admins_start_and_cancel_jobs(tmp_path: Path, recorder: Rig, right: Right) -> None:
    quarantine_frame(recorder, tmp_path)
    fill_job_folder(tmp_path / "jobs")
    write_user(tmp_path / "users", "anna", right, PASSWORD)
    rig = JobsRig(tmp_path, users=tmp_path / "users")
    async with rig.browser() as browser:
        for what in POSTS:
            program = await browser.post(f"{ROOT}/jobs/{what}", json={"bundle": SICK}, auth=("anna", PASSWORD))
            assert (program.status_code, program.json()) == (
                403,
                {"error": f"user: expected the right `admin`, got `{right}`"},
            ), what
        await browser.post("/login", data={"name": "anna", "password": PASSWORD})
        session = next(iter(rig.console.context.sessions._open.values()))
        for what in POSTS:
            answer = await browser.post(f"/jobs/{what}", data={"bundle": SICK, "csrf": session.csrf})
            assert answer.status_code == 403, what
        for page in ("/quarantine", "/models"):
            assert 'action="/jobs' not in (await browser.get(page)).text
    assert rig.jobs.newest() == []
    await rig.close()


async def test_the_api_starts_and_describes_jobs(rig: JobsRig) -> None:
    async with rig.browser() as browser:
        offer = (await browser.get(f"{ROOT}/jobs")).json()
        assert [each["bundle"] for each in offer["bundles"]] == [SICK, "bundle-well"]
        started = await browser.post(f"{ROOT}/jobs/repair", json={"bundle": SICK})
        assert started.status_code == 202
        entry = document()["paths"][f"{ROOT}/jobs/repair"]["post"]["responses"]
        assert [status for status in entry if status.isdecimal()] == [str(started.status_code)]
        assert all(f"`{key}`" in entry["202"]["description"] for key in started.json())
        await rig.finished_job()
        found = (await browser.get(f"{ROOT}/jobs/{started.json()['job_id']}")).json()
        assert (found["state"], found["figures"]["target_class"]) == ("done", 3)
        assert (await browser.post(f"{ROOT}/jobs/repair", json={"bundle": ["x"]})).status_code == 400


async def test_a_repair_without_the_recorders_database_is_answered_with_status_503(
    rig: JobsRig,
) -> None:
    (rig.folder / "records.sqlite").rename(rig.folder / "away.sqlite")
    async with rig.browser() as browser:
        answer = await browser.post(f"{ROOT}/jobs/repair", json={"bundle": SICK, "camera": CAMERA})
    assert answer.status_code == 503
    assert "expected the recorder's database" in answer.json()["error"]


async def test_a_change_of_a_job_while_the_database_does_not_respond_is_answered_with_status_503(
    rig: JobsRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(_: str) -> None:
        raise BrokerError("the console's database does not respond")

    monkeypatch.setattr(rig.jobs, "find", hang)
    async with rig.browser() as browser:
        answer = await browser.post(f"{ROOT}/jobs/{'0' * 16}/cancel", json={})
    assert (answer.status_code, answer.json()["error"]) == (503, "the console's database does not respond")


async def test_without_a_signer_nothing_is_published(tmp_path: Path, recorder: Rig) -> None:
    fill_job_folder(tmp_path / "jobs")
    (tmp_path / "jobs" / "clean.npz").unlink()
    rig = JobsRig(tmp_path, settings={"publish": None, "rollback": None})
    async with rig.browser() as browser:
        for what, words in (("publish", "jobs.signer"), ("repair", "clean.npz")):
            rejected = await browser.post(f"/jobs/{what}", data=rig.form(bundle=SICK))
            assert rejected.status_code == 400
            assert words in rejected.text
        assert "pointillist model publish" in (await browser.get("/models")).text
        assert "clean.npz" in (await browser.get("/quarantine")).text
    await rig.close()


async def test_the_processors_own_bundle_is_repaired_and_not_published(tmp_path: Path, recorder: Rig) -> None:
    quarantine_frame(recorder, tmp_path)
    fill_job_folder(tmp_path / "jobs")
    rig = JobsRig(tmp_path, settings={"bundle": tmp_path / "jobs" / "bundles" / "well"})
    async with rig.browser() as browser:
        assert 'value="own"' in (await browser.get("/quarantine")).text
        assert 'value="own"' not in (await browser.get("/models")).text
        rejected = await browser.post("/jobs/publish", data=rig.form(bundle="own"))
        assert "expected another one than the processors' default" in rejected.text
        await start(rig, browser, bundle="own")
    assert rig.arguments(await rig.finished_job())[3] == str(tmp_path / "jobs" / "bundles" / "well")
    await rig.close()


def test_without_a_folder_of_jobs_the_pages_show_the_commands_instead(console: ConsoleRig) -> None:
    browser = console.browser()
    assert "pointillist lab repair" in browser.get("/quarantine").text
    assert "pointillist model publish" in browser.get("/models").text
    for what in POSTS:
        answer = browser.post(f"/jobs/{what}", data={"csrf": console.csrf(), "bundle": SICK})
        assert (answer.status_code, answer.json()["error"][:22]) == (409, "jobs.folder is missing")
    assert browser.get(f"{ROOT}/jobs").status_code == 409


def test_a_deeply_nested_description_is_a_bundle_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "model.toml").write_text(f"x = {'[' * 5000}{']' * 5000}")
    assert [(each.choice_id, each.name) for each in operator_bundles(tmp_path)] == [("bundle-deep", "")]


def test_bundles_are_found_by_names_that_need_no_escape(tmp_path: Path) -> None:
    for name in ("a-1", ".hidden", "a b", "<b>", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.toml").write_text("no = toml = at all")
    assert [(each.choice_id, each.name) for each in operator_bundles(tmp_path)] == [
        ("bundle-a-1", ""),
        ("bundle-b", ""),
    ]


@settings(max_examples=40)
@given(
    st.lists(st.one_of(st.text(max_size=60), st.just('{"phase": 3}'), st.just('{"phase": "a", "step": 1')), max_size=9)
)
def test_any_output_of_a_job_can_be_shown(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    log = tmp_path_factory.getbasetemp() / "log"
    log.write_text("\n".join([*lines, '{"phase": "b", "step": 9, "steps": 4}', "error: no", "\x00"]), errors="replace")
    assert progress_of(log) == Progress("b", 4, 4)
    assert last_message(log) == "no"
    assert all(len(line) <= 300 for line in tail_of(log))


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(["held_out", "clean_accuracy", "before", "count", "seconds", "published"]), inner
        ),
        max_leaves=8,
    )
)
def test_any_content_of_a_report_can_be_shown(tmp_path_factory: pytest.TempPathFactory, found: object) -> None:
    file = tmp_path_factory.getbasetemp() / "figures.json"
    file.write_text(json.dumps(found))
    report = report_of(file, file.parent)
    assert (report is None) == (not isinstance(found, dict))


def test_the_console_reads_the_pictures_where_a_repair_writes_them() -> None:
    assert PICTURES_FOLDER == PICTURES
