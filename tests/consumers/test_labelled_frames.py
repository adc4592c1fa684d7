"""Frames to label: their collection, labels, imports and exports, and the training as a job."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consumers.console.access.rights import Right
from consumers.console.access.sight import ALL
from consumers.console.access.users import write_user
from consumers.console.data import labelled_frames as module
from consumers.console.data.appearance import sketch
from consumers.console.data.collector import QUIET_MS, Collector
from consumers.console.data.label_folders import export_folder, frames_exported_as, import_folder
from consumers.console.data.labelled_frames import LabelledFrames
from consumers.console.data.pictures import CameraPicture
from consumers.console.data.store import Store
from consumers.console.jobs.commands import FIGURES, arguments_of
from consumers.console.jobs.output import teach_report_of
from consumers.console.jobs.rows import Job, JobKind
from consumers.console.pages.camera import changes_on
from consumers.console.settings import JobSettings
from lab.restoration.psnr import read_picture
from schemas.errors import ConfigError, StateError
from schemas.identity import CameraId, Identity
from schemas.runtime.supervisor import Process
from tests.consumers.console_rig import CONSOLE_KEYS, OWNER, ROW, ConsoleRig, jpeg_scene
from tests.consumers.jobs_rig import JobsRig
from tests.consumers.recorder_rig import CAMERA
from tests.consumers.served_console import serving
from tests.waiting import until


@pytest.fixture
def labelled_frames(bare_rig: ConsoleRig) -> LabelledFrames:
    assert bare_rig.context.labelled_frames is not None
    return bare_rig.context.labelled_frames


def picture(seq: int, seed: int = 0, verdict: str = "car", confidence: float = 0.9) -> CameraPicture:
    recorded_ms = time.time_ns() // 10**6 + 1000 * seq
    row = ROW._replace(seq=seq, recorded_ms=recorded_ms, class_name=verdict, confidence=confidence)
    return CameraPicture("", row, jpeg_scene(seed))


def test_a_kept_frame_is_sealed_and_bound_to_its_identity(labelled_frames: LabelledFrames, tmp_path: Path) -> None:
    jpeg = jpeg_scene(3)
    name = labelled_frames.keep((CAMERA, 1, 7), jpeg, "new", "car", 0.9)
    other = labelled_frames.keep((CAMERA, 1, 8), jpeg, "new", "car", 0.9)
    assert labelled_frames.picture(name) == jpeg
    file = tmp_path / "quarantine" / "teach" / f"{name}.sealed"
    assert jpeg[:40] not in file.read_bytes()
    file.replace(tmp_path / "quarantine" / "teach" / f"{other}.sealed")
    assert labelled_frames.picture(other) == b"", "the picture is bound to another frame"
    assert labelled_frames.picture(name) == b""


@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgresql", marks=[pytest.mark.brokers, pytest.mark.xdist_group("postgresql")])]
)
def test_labels_of_the_first_release_stay(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/first.sqlite"
    if kind == "postgresql":
        url = request.getfixturevalue("postgresql").create("first_labels")
    store = Store(url)
    try:
        store.prepare()
        kept = LabelledFrames(store.engine, str(tmp_path / "kept"), CONSOLE_KEYS.previews)
        name = kept.keep((CAMERA, 1, 7), jpeg_scene(3), "new", "car", 0.9, "mine", "anna")
        sealed = CONSOLE_KEYS.previews.seal(jpeg_scene(4), Identity(CameraId(CAMERA), 1, 7), "lesson")
        (tmp_path / "kept" / "teach" / f"{name}.sealed").write_bytes(sealed)  # as 0.1.0 wrote it
        with store.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE console_labelled_frames RENAME TO console_lessons")
        for _ in range(2):
            store.prepare()
            assert kept.counts() == {"mine": 1}
        assert kept.picture(name) == jpeg_scene(4)
    finally:
        store.close()


def test_stored_labels_are_shown_with_the_frames_that_the_user_labelled_last(
    bare_rig: ConsoleRig, labelled_frames: LabelledFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(10**12)
    monkeypatch.setattr(module, "unix_ms", lambda: next(clock))  # two labels in one millisecond count as one act
    names = [labelled_frames.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9) for seq in range(4)]
    labelled_frames.label(names[:1], "mine", OWNER)
    labelled_frames.label(names[1:3], "other", OWNER)
    labelled_frames.label(names[3:], "mine", "bob")
    assert sorted(labelled_frames.labelled_last(OWNER)) == names[1:3]
    assert labelled_frames.labelled_last("anna") == []
    browser = bare_rig.browser()
    page = browser.get("/teach?show=labelled").text
    assert page.count("<figure") == 4
    assert f'data-name="{names[0]}" data-label="mine"' in page
    assert f'data-last="{" ".join(names[1:3])}"' in browser.get("/teach").text
    assert "<figure" not in browser.get("/teach").text


def test_invented_names_reach_no_file(labelled_frames: LabelledFrames, tmp_path: Path) -> None:
    name = labelled_frames.keep((CAMERA, 1, 7), jpeg_scene(3), "new", "car", 0.9)
    outside = tmp_path / "quarantine" / "other.sealed"
    outside.write_bytes(b"something else")
    labelled_frames.discard(["../other", name])
    assert outside.exists()
    assert labelled_frames.picture(name) == b""


def test_a_frame_that_cannot_be_deleted_stops_no_other_deletion(
    labelled_frames: LabelledFrames, tmp_path: Path
) -> None:
    names = [labelled_frames.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9) for seq in range(3)]
    locked = next((tmp_path / "quarantine").rglob(f"{names[1].rpartition('/')[2]}.sealed"))
    locked.unlink()
    locked.mkdir()
    with pytest.raises(StateError, match=r"^kept_files: expected a store that answers, got "):
        labelled_frames.discard(names)
    assert [each.name for each in labelled_frames.waiting(10)] == [names[1]]
    locked.rmdir()
    labelled_frames.discard(names)
    assert labelled_frames.waiting(10) == []


def test_an_import_that_does_not_fit_is_rejected_and_evicts_nothing(
    labelled_frames: LabelledFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 40_000)
    name = labelled_frames.keep((CAMERA, 1, 7), jpeg_scene(3), "new", "car", 0.9, "mine", "anna")
    for number in range(20):
        file = tmp_path / "given" / "car" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg_scene(number))
    with pytest.raises(ConfigError, match="bytes of pictures next to the labelled ones"):
        import_folder(labelled_frames, tmp_path / "given", "anna", read_picture)
    assert labelled_frames.picture(name)
    truncated = tmp_path / "cut" / "car" / "1.jpg"
    truncated.parent.mkdir(parents=True)
    truncated.write_bytes(jpeg_scene(1)[:900])
    with pytest.raises(ConfigError, match="expected a picture"):
        import_folder(labelled_frames, tmp_path / "cut", "anna", read_picture)
    truncated.write_text("no picture")
    with pytest.raises(ConfigError, match=r"1\.jpg: expected a picture, got a file of another kind"):
        import_folder(labelled_frames, tmp_path / "cut", "anna", read_picture)


def test_the_collector_keeps_new_unsure_changed_and_some_usual_frames(labelled_frames: LabelledFrames) -> None:
    collector = Collector(labelled_frames)
    assert collector.judge(picture(1, seed=1)) == "new"
    assert collector.judge(picture(1, seed=1)) is None, "the same picture again"
    assert collector.judge(picture(2, seed=1)) is None, "a near-duplicate"
    assert collector.judge(picture(3, seed=2, verdict="unsure", confidence=0.2)) == "unsure"
    assert collector.judge(picture(4, seed=3)) == "changed"
    assert collector.judge(picture(5, seed=4)) == "new"
    assert collector.judge(picture(5 + QUIET_MS // 1000, seed=4)) == "usual"
    assert len(labelled_frames.waiting(10)) == 5


def test_only_frames_of_chosen_cameras_are_collected(bare_rig: ConsoleRig, labelled_frames: LabelledFrames) -> None:
    bare_rig.context.fleet.add_frames([picture(1).row], {(CAMERA, 1, 1): jpeg_scene(1)}, {}, 0)
    collector = Collector(labelled_frames)
    assert collector.step(bare_rig.context.fleet) == 0
    labelled_frames.collect(CAMERA, "ada", wanted=True)
    assert collector.step(bare_rig.context.fleet) == 1
    labelled_frames.collect(CAMERA, "ada", wanted=False)
    bare_rig.context.fleet.add_frames([picture(2).row], {(CAMERA, 1, 2): jpeg_scene(2)}, {}, 0)
    assert collector.step(bare_rig.context.fleet) == 0


def test_a_restarted_collector_skips_near_duplicates_of_kept_frames(labelled_frames: LabelledFrames) -> None:
    Collector(labelled_frames).judge(picture(1, seed=1))
    fresh = Collector(labelled_frames)
    fresh.judge(picture(2, seed=2))
    assert fresh.judge(picture(3, seed=1)) is None


def test_the_oldest_frames_without_a_label_are_deleted_first(
    labelled_frames: LabelledFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [labelled_frames.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9) for seq in range(4)]
    labelled_frames.label(names[:1], "door", "ada")
    monkeypatch.setattr(module, "MOST_BYTES", 3 * len(jpeg_scene(0)))
    labelled_frames.keep((CAMERA, 1, 4), jpeg_scene(4), "new", "car", 0.9)
    left = {each.name for each in [*labelled_frames.waiting(10), *labelled_frames.labelled(10)]}
    assert names[0] in left
    assert names[1] not in left
    assert labelled_frames.picture(names[1]) == b""


def keep_at(labelled_frames: LabelledFrames, site: str, seqs: range, label: str = "") -> list[str]:
    """Keep frames of a camera of a site; return their names."""
    return [labelled_frames.keep((f"{site}/door", 1, seq), jpeg_scene(9), "new", "car", 0.9, label) for seq in seqs]


def size_of(frames: int) -> int:
    """Return the bytes of this many frames of `keep_at`, each sealed."""
    return frames * len(CONSOLE_KEYS.previews.seal(jpeg_scene(9), Identity(CameraId(CAMERA), 1, 7), "lesson"))


def test_frames_of_the_site_with_the_most_bytes_are_deleted_first(
    labelled_frames: LabelledFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", size_of(6))
    south = keep_at(labelled_frames, "south", range(2))
    north = keep_at(labelled_frames, "north", range(9))
    assert {each.name for each in labelled_frames.waiting(99)} == {*south, *north[5:]}
    south += keep_at(labelled_frames, "south", range(2, 4))
    assert {each.name for each in labelled_frames.waiting(99)} == {*south[1:], *north[6:]}


def test_the_labels_of_a_site_leave_other_sites_a_reserve_and_room_for_labels(
    labelled_frames: LabelledFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", size_of(32))
    imported = keep_at(labelled_frames, "imported", range(12), "car")
    north = keep_at(labelled_frames, "north", range(20), "car")
    south = keep_at(labelled_frames, "south", range(5))
    assert [each.name for each in labelled_frames.waiting(99)] == south[:2:-1], "the reserve: a 16th"
    assert {each.name for each in labelled_frames.labelled(99)} == {*imported, *north[2:]}
    labelled_frames.label(south[3:], "car", "ada")
    south += keep_at(labelled_frames, "south", range(5, 7), "car")
    (newest,) = keep_at(labelled_frames, "south", range(7, 8))
    assert [each.name for each in labelled_frames.waiting(99)] == [newest]
    assert {each.name for each in labelled_frames.labelled(99)} == {*imported, *north[5:], *south[3:]}


def test_the_classes_of_a_site_leave_room_for_another_site_up_to_a_total(
    labelled_frames: LabelledFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CLASSES", 2)
    for label in ("car", "van"):
        keep_at(labelled_frames, "north", range(int(label == "van"), 2), label)
    (north,) = keep_at(labelled_frames, "north", range(2, 3))
    (south,) = keep_at(labelled_frames, "south", range(1))
    with pytest.raises(ConfigError, match="class: expected at most 2 at a site, got another one"):
        labelled_frames.label([south, north], "bus", "ada")
    assert labelled_frames.label([south], "bus", "ada") == 1
    for label, seed in (("car", 1), ("van", 2), ("bus", 3)):
        save_picture(tmp_path / "given", f"{label}/1.png", np.full((32, 32, 3), 40 * seed, np.uint8))
    with pytest.raises(ConfigError, match="class: expected at most 2 at a site"):
        import_folder(labelled_frames, tmp_path / "given", "ada", read_picture)
    monkeypatch.setattr(module, "MOST_CLASSES", 3)
    monkeypatch.setattr(module, "MOST_SITES", 1)
    with pytest.raises(ConfigError, match="class: expected at most 3 at all sites"):
        labelled_frames.label([south], "bike", "ada")
    assert labelled_frames.counts() == {"bus": 1, "car": 1, "van": 1}


def test_an_old_frame_can_be_labelled_again_after_its_label_is_removed(
    labelled_frames: LabelledFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(10**12)
    monkeypatch.setattr(module, "unix_ms", lambda: next(clock))
    monkeypatch.setattr(labelled_frames, "_age_clock_ms", lambda: next(clock))
    old = labelled_frames.keep((CAMERA, 1, 0), jpeg_scene(0), "new", "car", 0.9, "door", "ada")
    clock = count(10**12 + 31 * 86_400_000)
    other = labelled_frames.keep((CAMERA, 1, 1), jpeg_scene(1), "new", "car", 0.9)
    labelled_frames.label([old], "", "ada")
    monkeypatch.setattr(module, "MOST_BYTES", int(3.5 * len(jpeg_scene(0))))
    for seq in (2, 3):
        labelled_frames.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9)
    assert labelled_frames.picture(other) == b"", "the oldest frame beyond the bound"
    assert labelled_frames.picture(old) == jpeg_scene(0)
    clock = count(10**12 + 62 * 86_400_000)
    labelled_frames.purge()
    assert labelled_frames.waiting(10) == []


async def test_frames_without_a_label_expire_also_when_no_frame_is_added(
    labelled_frames: LabelledFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [labelled_frames.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9) for seq in range(2)]
    labelled_frames.label(names[:1], "door", "ada")
    monkeypatch.setattr(module, "LONGEST_S", -1.0)
    labelled_frames.purge()
    assert len(labelled_frames.waiting(10)) == 1, "nothing expires before the clock has settled"
    monkeypatch.setattr("schemas.runtime.settled_clock.SETTLED_S", 0.0)
    async with serving(tmp_path, owner_file=tmp_path / "other.token"):
        await until(lambda: not labelled_frames.waiting(10))
    assert labelled_frames.picture(names[1]) == b""
    assert [each.name for each in labelled_frames.labelled(10)] == names[:1]


def test_a_suggestion_comes_from_the_nearest_labels(labelled_frames: LabelledFrames) -> None:
    def noisy(seed: int, noise: int) -> bytes:
        with Image.open(io.BytesIO(jpeg_scene(seed))) as opened:
            values = np.asarray(opened.convert("RGB"), int)
        values = values + np.random.default_rng(noise).integers(-30, 30, values.shape)
        out = io.BytesIO()
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(out, "JPEG")
        return out.getvalue()

    for seq in range(9):
        labelled_frames.keep((CAMERA, 1, seq), noisy(seq % 2, seq), "new", "", 0.0, ("even", "odd")[seq % 2], "ada")
    labelled_frames.keep((CAMERA, 2, 0), noisy(1, 50), "new", "car", 0.9)
    assert [each.suggestion for each in labelled_frames.waiting(5)] == [""], "nine labels are too few"
    labelled_frames.keep((CAMERA, 1, 9), noisy(1, 9), "new", "", 0.0, "odd", "ada")
    assert [each.suggestion for each in labelled_frames.waiting(5)] == ["odd"]


def test_labels_survive_an_export_and_an_import(
    bare_rig: ConsoleRig, labelled_frames: LabelledFrames, tmp_path: Path
) -> None:
    for seq, label in enumerate(("gate open", "gate open", "shut")):
        labelled_frames.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9, label, "ada")
    assert export_folder(labelled_frames, tmp_path / "out") == {"gate open": 2, "shut": 1}
    labelled_frames.discard([each.name for each in labelled_frames.labelled(10)])
    assert labelled_frames.counts() == {}
    for _ in range(2):  # a second import changes nothing
        imported = import_folder(labelled_frames, tmp_path / "out", "bob", read_picture)
        assert imported.counts == {"gate open": 2, "shut": 1}
    assert labelled_frames.counts() == {"gate open": 2, "shut": 1}
    assert {each.who for each in labelled_frames.labelled(10)} == {"bob"}


def test_an_exported_frame_is_not_stored_again_and_follows_its_folder(
    labelled_frames: LabelledFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        labelled_frames.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9, label, "ada")
        for seq, label in enumerate(("shut", "shut", "open"))
    ]
    export_folder(labelled_frames, tmp_path / "out")
    labelled_frames.label(names[2:], "", "ada")
    [moved] = (tmp_path / "out" / "shut").glob(f"*{names[1].rpartition('/')[2]}.jpg")
    moved.rename(tmp_path / "out" / "open" / moved.name)
    (tmp_path / "out" / "open" / "new.jpg").write_bytes(jpeg_scene(9))
    monkeypatch.setattr(module, "MOST_BYTES", 4 * len(jpeg_scene(0)) + 500)
    assert import_folder(labelled_frames, tmp_path / "out", "bob", read_picture).counts == {"open": 3, "shut": 1}
    labelled = {each.name: (each.camera, each.label, each.who) for each in labelled_frames.labelled(10)}
    assert {labelled.pop(name) for name in names[1:]} == {(CAMERA, "open", "bob")}
    assert labelled.pop(names[0]) == (CAMERA, "shut", "ada")
    assert list(labelled.values()) == [("imported/pictures", "open", "bob")]


def save_picture(folder: Path, name: str, pixels: np.ndarray, **options: Any) -> None:
    """Write a picture into a folder to import."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name, **options)


GREY = np.linspace(0, 255, 32 * 32).reshape(32, 32).round()


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("16-bit.png", (GREY * 257).astype(np.uint16), GREY),
        ("integer.tif", (GREY * 257).astype(np.int32), GREY),
        ("float.tif", (GREY / 100 - 1).astype(np.float32), GREY),
        ("transparent.png", np.zeros((32, 32, 4), np.uint8), np.full((32, 32), 255)),
        ("grey-alpha.png", np.zeros((32, 32, 2), np.uint8), np.full((32, 32), 255)),
        ("black.png", np.zeros((32, 32), np.uint8), np.zeros((32, 32))),
    ],
)
def test_deep_and_transparent_pictures_look_the_same_after_an_import(
    labelled_frames: LabelledFrames, tmp_path: Path, name: str, pixels: np.ndarray, expected: np.ndarray
) -> None:
    save_picture(tmp_path / "given", f"car/{name}", pixels)
    assert import_folder(labelled_frames, tmp_path / "given", "ada", read_picture) == ({"car": 1}, 0)
    (frame,) = labelled_frames.labelled(5)
    with Image.open(io.BytesIO(labelled_frames.picture(frame.name))) as opened:
        assert np.abs(np.asarray(opened.convert("L"), float) - expected).mean() < 2


def test_an_import_reads_sub_folders_and_usual_endings_and_counts_each_frame_once(
    labelled_frames: LabelledFrames, tmp_path: Path
) -> None:
    folder = tmp_path / "given"
    for number, name in enumerate(("1.bmp", "2.webp", "3.TIF", "4.jpeg", "morning/5.png", "morning/early/6.jpg")):
        save_picture(folder, f"car/{name}", np.full((32, 32, 3), 40 * number, np.uint8))
    (folder / "car" / "again.jpeg").write_bytes((folder / "car" / "4.jpeg").read_bytes())
    for name in ("notes.txt", "morning/clip.mp4", ".hidden"):
        (folder / "car" / name).touch()
    save_picture(folder, "car/.thumbnails/1.jpg", np.full((32, 32, 3), 250, np.uint8))
    (folder / "unsure").mkdir()  # empty
    assert import_folder(labelled_frames, folder, "ada", read_picture) == ({"car": 6}, 2)
    assert labelled_frames.counts() == {"car": 6}


def test_an_import_whose_pictures_grow_as_jpeg_evicts_no_label(
    labelled_frames: LabelledFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 40_000)
    mine = labelled_frames.keep((CAMERA, 1, 7), jpeg_scene(3), "new", "car", 0.9, "mine", "anna")
    folder = tmp_path / "given"
    for seed in range(6):
        pixels = np.random.default_rng(seed).integers(0, 255, (96, 96, 3), np.uint8)
        save_picture(folder, f"van/{seed}.webp", pixels, quality=1)
    assert sum(file.stat().st_size for file in folder.rglob("*.webp")) < module.MOST_BYTES / 2
    with pytest.raises(ConfigError, match="bytes of pictures next to the labelled ones"):
        import_folder(labelled_frames, folder, "ada", read_picture)
    assert [each.name for each in labelled_frames.labelled(10)] == [mine]


def test_an_import_counts_the_bytes_of_distinct_pictures(
    labelled_frames: LabelledFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = jpeg_scene(1)
    (tmp_path / "given" / "car").mkdir(parents=True)
    for number in range(5):
        (tmp_path / "given" / "car" / f"{number}.jpg").write_bytes(jpeg)
    size = len(CONSOLE_KEYS.previews.seal(jpeg, Identity(CameraId(CAMERA), 1, 7), "lesson"))
    monkeypatch.setattr(module, "MOST_BYTES", size - 1)
    with pytest.raises(ConfigError, match="bytes of pictures next to the labelled ones"):
        import_folder(labelled_frames, tmp_path / "given", "ada", read_picture)
    monkeypatch.setattr(module, "MOST_BYTES", size)
    assert import_folder(labelled_frames, tmp_path / "given", "ada", read_picture) == ({"car": 1}, 0)
    assert labelled_frames.counts() == {"car": 1}


def test_a_rejected_import_stores_nothing(labelled_frames: LabelledFrames, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    for number, name in enumerate(("car/1.png", "car/2.png", "unsure/3.png")):
        save_picture(folder, name, np.full((32, 32, 3), 40 * number, np.uint8))
    with pytest.raises(ConfigError, match="class: expected"):
        import_folder(labelled_frames, folder, "ada", read_picture)
    (folder / "unsure").rename(folder / "van")
    save_picture(folder, "van/4.png", np.full((32, 32, 3), 40, np.uint8))
    with pytest.raises(ConfigError, match=r"van/4.png: expected a picture of one class, got 'car' and 'van'"):
        import_folder(labelled_frames, folder, "ada", read_picture)
    assert labelled_frames.counts() == {}


@pytest.mark.parametrize("label", ["a/b", "..", ".x", "x" * 65, "a\nb", "unsure"])
def test_a_label_that_is_no_valid_folder_name_is_rejected(labelled_frames: LabelledFrames, label: str) -> None:
    with pytest.raises(ConfigError, match="class: expected"):
        labelled_frames.label([], label, "ada")


def test_sketches_ignore_brightness() -> None:
    assert float(sketch(jpeg_scene(1)) @ sketch(jpeg_scene(1, dark=True))) > 0.95
    assert float(sketch(jpeg_scene(1)) @ sketch(jpeg_scene(2))) < 0.8


def test_labels_are_set_removed_and_logged(bare_rig: ConsoleRig, labelled_frames: LabelledFrames) -> None:
    name = labelled_frames.keep((CAMERA, 1, 7), jpeg_scene(3), "new", "car", 0.9)
    browser, token = bare_rig.browser(), {"x-csrf-token": bare_rig.csrf()}
    page = browser.get("/teach").text
    assert f'data-name="{name}"' in page
    assert browser.get(f"/teach/picture/{name}.jpg").content == jpeg_scene(3)
    answer = browser.post("/teach/label", data={"names": name, "label": "open"}, headers=token)
    assert answer.json() == {"counts": [["open", 1]], "ready": False, "omitted": [], "waiting": []}
    (found,) = labelled_frames.labelled(5)
    assert (found.label, found.who) == ("open", OWNER)
    answer = browser.post("/teach/label", data={"names": name, "label": ""}, headers=token)
    waiting = [{"name": name, "suggestion": "", "may_label": True}]
    assert answer.json() == {"counts": [], "ready": False, "omitted": [], "waiting": waiting}
    assert browser.post("/teach/label", data={"names": name, "label": "a/b"}, headers=token).status_code == 400
    assert browser.post("/teach/label", data={"names": name, "discard": "yes"}, headers=token).json()["waiting"] == []
    assert browser.get(f"/teach/picture/{name}.jpg").status_code == 404
    noted = [(each.what, each.detail) for each in bare_rig.context.store.newest_operations()]
    assert noted == [("label", "discarded"), ("label", "label removed"), ("label", "open")]


def test_the_page_of_an_unsure_camera_links_to_the_collection_of_its_frames(
    bare_rig: ConsoleRig, labelled_frames: LabelledFrames
) -> None:
    for camera in (CAMERA, f"{CAMERA}-2"):
        row = picture(1, verdict="unsure").row._replace(camera=camera)
        bare_rig.context.fleet.add_frames([row], {(camera, 1, 1): jpeg_scene(1)}, {}, 0)
    bare_rig.tick()
    place = f"/teach?camera={CAMERA}-2"
    assert f'<a href="{place}">Teach it</a>' in bare_rig.browser().get(f"/camera/{CAMERA}-2").text
    assert f"<option selected>{CAMERA}-2</option>" in bare_rig.browser().get(place).text
    assert "selected" not in bare_rig.browser().get("/teach").text
    labelled_frames.collect(CAMERA, OWNER, wanted=True)
    assert "its frames are collected" in bare_rig.browser().get(f"/teach?camera={CAMERA}").text
    assert "its frames are collected" not in bare_rig.browser().get(place).text


def test_reporting_a_wrong_verdict_keeps_the_picture(bare_rig: ConsoleRig, labelled_frames: LabelledFrames) -> None:
    bare_rig.context.fleet.add_frames([picture(1).row], {(CAMERA, 1, 1): jpeg_scene(1)}, {}, 0)
    bare_rig.tick()
    page = bare_rig.browser().get(f"/camera/{CAMERA}").text
    assert "This verdict is wrong" in page
    assert '<input type="hidden" form="wrong" name="verdict" value="car">' in page
    shown = {"camera": CAMERA, "csrf": bare_rig.csrf(), "verdict": "car"}
    bare_rig.context.fleet.add_frames(
        [picture(2).row], {(CAMERA, 1, 2): jpeg_scene(2)}, {}, 0
    )  # a newer frame with the same verdict
    assert bare_rig.browser().post("/teach/wrong", data=shown).status_code == 303
    (kept,) = labelled_frames.waiting(5)
    assert (kept.why, kept.verdict) == ("wrong", "car")


def test_reporting_a_verdict_that_has_changed_since_the_page_was_loaded_keeps_no_picture(
    bare_rig: ConsoleRig, labelled_frames: LabelledFrames
) -> None:
    changes = changes_on(bare_rig.context, CAMERA, ALL)
    for seq, verdict in ((1, "car"), (2, "empty")):
        bare_rig.context.fleet.add_frames(
            [picture(seq, verdict=verdict).row], {(CAMERA, 1, seq): jpeg_scene(seq)}, {}, 0
        )
        bare_rig.tick()
        assert f'form="wrong" name="verdict" value="{verdict}"' in changes(), "the form changes with the picture"
    for shown in ({"verdict": "car"}, {}):
        answer = bare_rig.browser().post("/teach/wrong", data={"camera": CAMERA, "csrf": bare_rig.csrf()} | shown)
        assert (answer.status_code, "by now" in answer.text) == (409, True)
    assert labelled_frames.waiting(5) == []


def test_a_viewer_sees_the_page_and_changes_nothing(tmp_path: Path) -> None:
    users = tmp_path / "users"
    write_user(users, "eve", Right.VIEWER, "a long password")
    rig = ConsoleRig(tmp_path, users=users)
    try:
        assert rig.context.labelled_frames is not None
        name = rig.context.labelled_frames.keep((CAMERA, 1, 7), jpeg_scene(3), "new", "car", 0.9)
        browser, login = rig.browser(), ("eve", "a long password")
        assert 'data-may="no"' in browser.get("/teach", auth=login).text
        for place in ("label", "cameras", "wrong", "train"):
            sent = {"names": name, "label": "x", "camera": CAMERA}
            assert browser.post(f"/teach/{place}", data=sent, auth=login).status_code == 403
        assert browser.get("/teach").status_code in (303, 401)
    finally:
        rig.close()


def test_the_job_trains_on_an_export_of_the_labels(tmp_path: Path) -> None:
    job = Job("0" * 16, JobKind.TEACH, "", "gate thorough", "", "ada", 0)
    found = arguments_of(JobSettings(folder=tmp_path), job, None, tmp_path / "run")
    assert found[:5] == ["teach", "train", str(tmp_path / "run" / "labels"), "--name", "gate"]
    assert found[-1] == "--thorough"
    quick = arguments_of(JobSettings(folder=tmp_path), replace(job, subject="gate"), None, tmp_path / "run")
    assert "--thorough" not in quick


REPORT = {
    "classes": ["open", "shut"], "labels": [5, 5], "right": {"value": 0.9, "low": 0.6, "high": 0.98},
    "unsure": 0.1, "seconds": 12.3, "head": "depth 17", "confusion": [[5, 0, 0], [1, 3, 1]],
    "worst": [{"file": "shut/1.jpg", "label": "shut", "verdict": "open", "probability": 0.1}],
    "advice": ["more labels of shut are needed"],
}  # fmt: skip


def test_a_training_report_is_read_and_a_damaged_one_ignored(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(REPORT))
    found = teach_report_of(file)
    assert found is not None
    assert "The same labels chose the settings, so these shares are somewhat too good." in found.summary
    assert found.rows == [("open", [5, 0, 0]), ("shut", [1, 3, 1])]
    assert found.worst == [("shut/1.jpg", "shut", "open")]
    for damaged in ("", "[]", "{}", json.dumps(REPORT | {"worst": 3})):
        file.write_text(damaged)
        assert teach_report_of(file) is None
    assert teach_report_of(tmp_path / "none") is None


class CountingJobsRig(JobsRig):
    """Jobs whose labelled pictures are counted as the command starts."""

    pictures = 0

    def launch(self, arguments: Sequence[str], log: Path, variables: Mapping[str, str]) -> Process:
        self.pictures = sum(each.is_file() for each in Path(arguments[2]).rglob("*"))
        return super().launch(arguments, log, variables)


@pytest.mark.parametrize("mode", ["done", "refuses", "hangs"])
async def test_the_plain_copies_of_labelled_pictures_are_removed_after_a_training(tmp_path: Path, mode: str) -> None:
    rig = CountingJobsRig(tmp_path, mode=mode)
    kept = rig.console.context.labelled_frames
    assert kept is not None
    for seq, label in enumerate(("open", "shut", "shut") * 5):
        kept.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9, label, "ada")
    try:
        job = await rig.jobs.teach("ada", "gate", thorough=False)
        if mode == "hangs":
            await rig.pid()
            await rig.jobs.stop()
        await rig.finished_job()
        assert rig.pictures == 15
        folder = tmp_path / "jobs" / "runs" / job.job_id
        assert not (folder / "labels").exists()
        assert kept.counts() == {"open": 5, "shut": 10}
    finally:
        await rig.close()


async def test_a_class_with_few_labels_is_omitted_from_a_training_and_named(tmp_path: Path) -> None:
    rig = JobsRig(tmp_path, mode="done")
    kept = rig.console.context.labelled_frames
    assert kept is not None
    for seq, label in enumerate(("open", "shut") * 5):
        kept.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9, label, "ada")
    stray = kept.keep((CAMERA, 1, 10), jpeg_scene(10), "new", "car", 0.9)
    try:
        async with rig.browser() as browser:
            assert 'id="omitted" hidden' in (await browser.get("/teach")).text
            labelled = await browser.post("/teach/label", data=rig.form(names=stray, label="ajar"))
            assert (labelled.json()["ready"], labelled.json()["omitted"]) == (True, ["ajar"])
            assert "with fewer than 5 labels: <span>ajar</span>" in (await browser.get("/teach")).text
        job = await rig.jobs.teach("ada", "gate", thorough=False)
        await rig.finished_job()
        assert rig.jobs.choices()[f"job-{job.job_id}"].classes == ("open", "shut")
        kept.label([each.name for each in kept.labelled(20) if each.label == "shut"][:1], "", "ada")
        await rig.jobs.teach("ada", "gate", thorough=False)
        assert (await rig.finished_job()).outcome.startswith("labels: expected two classes of 5 or more, got 1")
    finally:
        await rig.close()


async def test_the_page_of_a_training_shows_the_frames_whose_labels_are_doubtful(tmp_path: Path) -> None:
    rig = JobsRig(tmp_path, mode="done")
    kept = rig.console.context.labelled_frames
    assert kept is not None
    names = [kept.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9, "shut", "ada") for seq in range(5)]
    for seq in range(5, 10):
        kept.keep((CAMERA, 1, seq), jpeg_scene(seq), "new", "car", 0.9, "open", "ada")
    export_folder(kept, tmp_path / "labels")
    files = [f"shut/{file.name}" for file in sorted((tmp_path / "labels" / "shut").iterdir())]
    assert frames_exported_as(kept, [*files, "shut/other.jpg"]) == dict(zip(files, names, strict=True))
    try:
        job = await rig.jobs.teach("ada", "gate", thorough=False)
        await rig.finished_job()
        worst = [{"file": file, "label": "shut", "verdict": "open"} for file in (files[1], "shut/gone.jpg")]
        report = tmp_path / "jobs" / "runs" / job.job_id / FIGURES
        report.write_text(json.dumps(REPORT | {"worst": worst}))
        async with rig.browser() as browser:
            page = (await browser.get(f"/jobs/{job.job_id}")).text
        assert f'src="/teach/picture/{names[1]}.jpg"' in page
        assert names[0] not in page
        assert "<code>shut/gone.jpg</code>" in page
    finally:
        await rig.close()
