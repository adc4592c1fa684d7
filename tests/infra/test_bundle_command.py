"""The command `pointillist bundle`, from its options to its output."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from infra.bundling import check as check_module
from infra.bundling import contact_sheet
from infra.bundling.create import create
from infra.local.process import COMMAND
from lab.statistics import Interval
from processors.bundle import read_settings
from schemas.errors import ConfigError
from tests.infra.command_line import call, run
from tests.infra.own_networks import write_names, write_onnx, write_pictures
from tests.processors.tiny import picture, write_bundle

LAB_LIBRARIES = ("foolbox", "matplotlib", "scipy", "skimage", "timm", "torchvision")
"""Libraries that a server need not have."""


@pytest.fixture
def trial_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try networks in the process of the test. A child would import torch first."""
    monkeypatch.setattr("infra.bundling.trial.create_within", lambda _, *arguments: create(*arguments).summary)


def test_a_bundle_is_created_and_checked_without_the_libraries_of_the_lab(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    for name in LAB_LIBRARIES:
        (absent / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is not here', name='{name}')\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POINTILLIST_")}
    environment["PYTHONPATH"] = str(absent)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "bundle", *map(str, arguments)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)

    network, names = write_onnx(tmp_path / "network.onnx"), write_names(tmp_path / "names.txt")
    pictures, out = write_pictures(tmp_path / "pictures", each=12), tmp_path / "colours"
    source = ("--onnx", network, "--classes", names, "--preset", "imagenet", "--calibrate", pictures)
    created = run("create", *source, "--out", out, "--strip-seconds", 0.1)
    assert created.returncode == 0, created.stderr
    assert "right on your pictures: 100.0%" in created.stdout
    assert "STRIP: suspect below" in created.stdout
    assert f"next: pointillist up --source URL --bundle {out}" in created.stdout.replace("\n", "")
    assert {"[strip]", "[drift]"} <= set((out / "model.toml").read_text().splitlines())
    (pictures / "red" / "broken.png").write_bytes(b"no picture")
    sheet = tmp_path / "sheet.png"
    checked = run("check", out, "--images", pictures, "--sheet", sheet, "--json")
    assert checked.returncode == 0, checked.stderr
    assert "skipped broken.png" in checked.stderr
    found = json.loads(checked.stdout)
    assert found["accuracy"]["value"] == 1
    assert found["pictures"] == 36
    assert sorted(found["top"]) == [["blue", 12], ["green", 12], ["red", 12]]
    assert found["doubts"] == []
    with Image.open(sheet) as drawn:
        assert drawn.width > 4 * 192


def test_an_existing_bundle_is_calibrated_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.strip.limits.DRAWS", 50)
    folder, pictures = write_bundle(tmp_path / "bundle", overlays=0), tmp_path / "pictures"
    pictures.mkdir()
    for number in range(40):
        Image.fromarray(picture(number)).save(pictures / f"{number}.png")
    command = ["bundle", "calibrate", str(folder), "--images", str(pictures), "--strip-seconds"]
    call(*command, "0")
    settings = read_settings(folder)
    assert settings.strip is None
    assert settings.drift is not None
    before = (folder / settings.drift.reference).read_bytes()
    for number in range(40):
        Image.fromarray(picture(100 + number)).save(pictures / f"{number}.png")
    call(*command, "0.1")
    assert read_settings(folder).strip is not None
    assert (folder / settings.drift.reference).read_bytes() != before
    assert "STRIP: suspect below" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="scene-plain: expected a folder, or the name of a bundle made on this mach"):
        call("bundle", "calibrate", "scene-plain", "--images", tmp_path / "none")
    dropped = "[[strip.dropped]]\ndropped_per_block = 16\nthreshold_bits = 1.2\nfrr = 0.01\n"
    with (folder / "model.toml").open("a") as table:
        table.write(f"\n{dropped}")
    call(*command, "0")
    assert "note: the [strip] table stays" in capsys.readouterr().out
    call(*command, "0.1")
    assert "note: removed with the former overlays: the thresholds of dropped frames" in capsys.readouterr().out
    strip = read_settings(folder).strip
    assert strip is not None
    assert not strip.dropped
    assert read_settings(folder).unsure_below == 0
    with (folder / "model.toml").open("a") as table:
        table.write(f"\n{dropped}")
    strip = read_settings(folder).strip
    call(*command, "0", "--unsure")
    assert read_settings(folder).unsure_below > 0
    assert read_settings(folder).strip == strip
    printed = capsys.readouterr().out
    assert re.search(r"^unsure: below .* behind a drop of 25%, \d+% of 40 verdicts are named", printed, re.MULTILINE)
    assert "note: the [strip] table stays" in printed
    call(*command, "0.1", "--unsure")
    assert "note: removed with the former overlays: the thresholds of dropped frames" in capsys.readouterr().out


def test_a_check_divides_the_logits_of_whole_and_of_dropped_pictures_by_the_temperature(tmp_path: Path) -> None:
    folder, pictures = write_bundle(tmp_path / "bundle"), tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(picture(0)).save(pictures / "0.png")
    (before,) = check_module.check(folder, pictures, 0.25, 1).shown
    settings = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(f"temperature = 8.0\n{settings}")
    (after,) = check_module.check(folder, pictures, 0.25, 1).shown
    assert after.whole[1] < before.whole[1] - 0.05
    assert after.dropped[1] < before.dropped[1] - 0.05


@pytest.mark.usefixtures("trial_in_this_process")
def test_a_doubtful_bundle_is_status_1_and_is_not_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, names = write_onnx(tmp_path / "network.onnx", order=(2, 1, 0)), write_names(tmp_path / "names.txt")
    pictures, out = write_pictures(tmp_path / "pictures", each=8), tmp_path / "my street"
    arguments = ["bundle", "create", "--onnx", str(network), "--classes", str(names), "--preset", "imagenet"]
    arguments += ["--calibrate", str(pictures), "--strip-seconds", "0", "--out", str(out)]
    # The state folder does not exist: publishing would fail with status 2.
    assert call(*arguments, "--publish", tmp_path / "nowhere") == 1
    printed = capsys.readouterr()
    assert "doubt: the order of the classes looks wrong" in printed.out
    assert "not served" in printed.err
    assert f"next: pointillist up --source URL --bundle '{out}'" in printed.out.splitlines()
    assert (out / "model.toml").is_file()


@pytest.mark.usefixtures("trial_in_this_process")
def test_a_network_with_other_classes_is_published_with_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[dict[str, object]] = []
    monkeypatch.setattr("infra.cli.bundle.publish_model", lambda **options: published.append(options))
    network, names = write_onnx(tmp_path / "network.onnx"), write_names(tmp_path / "names.txt")
    arguments = ["bundle", "create", "--onnx", str(network), "--classes", str(names), "--preset", "imagenet"]
    arguments += ["--strip-seconds", "0", "--out", str(tmp_path / "out"), "--publish", "state", "--other-classes"]
    call(*arguments)
    assert published == [{"bundle": tmp_path / "out", "state": Path("state"), "other_classes": True}]


@pytest.mark.usefixtures("trial_in_this_process")
def test_up_gets_its_options_and_an_address_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, arguments, variables: started.append((arguments, variables)))
    network, names = write_onnx(tmp_path / "network.onnx"), write_names(tmp_path / "names.txt")
    arguments = ["bundle", "create", "--onnx", str(network), "--classes", str(names), "--preset", "imagenet"]
    arguments += ["--strip-seconds", "0", "--out", str(tmp_path / "out"), "--up"]
    arguments += ["--", "--source", "rtsp://u:hidden@camera/1", "--fps", "2"]
    call(*arguments)
    ((command, variables),) = started
    assert command[len(COMMAND) : -3] == ["up", "--bundle", str(tmp_path / "out"), "--source"]
    assert command[-2:] == ["--fps", "2"]
    assert "hidden" not in " ".join(command)
    assert variables[command[-3].removeprefix("env:")] == "rtsp://u:hidden@camera/1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of --onnx, --tflite, --torchscript, --torchvision, --timm and --imagenet, got none"),
        (["--onnx", "a.onnx", "--timm", "x"], "got --onnx and --timm"),
        (["--onnx", "a.onnx", "--size", "12"], "--size: expected WIDTHxHEIGHT"),
        (["--onnx", "a.onnx", "--size", "4097x32"], "--size: expected sides from 1 to 4096, got 4097x32"),
        (["--onnx", "a.onnx", "--size", "0x32"], "--size: expected sides from 1 to 4096, got 0x32"),
        (
            ["--imagenet", "--size", "32x32"],
            "--size: expected only with --onnx or .*, got it with --imagenet. Remove --size",
        ),
        (["--onnx", "a.onnx", "--channels", "1"], "--channels: expected only with --torchscript, got it with --onnx"),
        (
            ["--tflite", "a", "--weights", "a.pt"],
            "--weights: expected only with --torchvision or --timm, got it with --tflite",
        ),
        (["--onnx", "a.onnx", "--policy", "stretch"], "--policy: expected resize or crop or tile"),
        (["--onnx", "a.onnx", "cameras"], "cameras: expected options of `up` after --up"),
        (["--onnx", "a.onnx", "--channels", "2"], "--channels: expected 1 or 3"),
        (["--onnx", "a.onnx", "--name", "my net"], "--name: expected at most 64 letters"),
        (["--onnx", "a.onnx", "--name", "a" * 65], "--name: expected at most 64 letters"),
        (["--onnx", "a.onnx", "--version", "1/2"], "--version: expected at most 64 letters"),
        (["--onnx", "a.onnx", "--up", "--publish", "state"], "expected --publish or --up, got both"),
        (["--onnx", "a.onnx", "--other-classes"], "--other-classes: expected --publish with it"),
        (["--onnx", "a.onnx", "--unsure"], "--calibrate is missing: --unsure is set from its pictures"),
    ],
)
def test_invalid_or_contradictory_options_are_one_error_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        call("bundle", "create", "--out", tmp_path / "out", *arguments)


@pytest.mark.parametrize("options", [["--size", "abc"], ["--channels", "2"], ["--policy", "wrong"], []])
def test_a_failed_creation_keeps_the_existing_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    def fails(*arguments: object) -> None:
        out = arguments[2]
        assert isinstance(out, Path)
        out.mkdir()
        raise ConfigError("no network")

    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "model.toml").touch()
    monkeypatch.setattr("infra.cli.bundle.MADE", tmp_path)
    monkeypatch.setattr("infra.bundling.trial.create_within", fails)
    with pytest.raises(ConfigError):
        call("bundle", "create", "--imagenet", *options)
    assert [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*"))] == [
        "imagenet",
        "imagenet/model.toml",
    ]


@pytest.mark.parametrize(("doubts", "code"), [((), 0), (("the order of the classes is another",), 1)])
def test_the_output_of_a_check_lists_its_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doubts: tuple[str, ...], code: int
) -> None:
    share = Interval(0.9, 0.8, 0.95)
    settings = SimpleNamespace(input=SimpleNamespace(channels=1, height=8, width=9), classes=["a", "b"], strip=None)
    found = SimpleNamespace(
        bundle=SimpleNamespace(model_id="own@1", settings=settings), runs="torch", load_s=0.25,
        one_ms=1.5, batch_ms=0.5,
        pictures=20, agreement=share, judged=SimpleNamespace(doubts=doubts, accuracy=share), accuracy_dropped=share,
        top=[("a", 12), ("b", 8)], shown=[],
    )  # fmt: skip
    drawn: list[Path] = []
    monkeypatch.setattr(check_module, "check", lambda *_: found)
    monkeypatch.setattr(contact_sheet, "write_sheet", lambda _, file: drawn.append(file))
    sheet = tmp_path / "sheet.png"
    done = run("bundle", "check", "scene", "--images", tmp_path, "--drop-ratio", "0.5", "--sheet", sheet)
    assert (done.exit_code, drawn) == (code, [sheet])
    for line in (
        "own@1: 1×8×9, 2 classes", "loaded in 0.2 s; by torch 1.50 ms for a picture, 0.50 ms in a batch of 32",
        "most often: a 12, b 8", "note: the network takes grey pictures: colours become luma", f"pictures: {sheet}",
        *(f"doubt: {doubt}" for doubt in doubts),
    ):  # fmt: skip
        assert f"{line}\n" in done.output
    assert "after 50% dropped and rebuilt: " in done.output
    assert "triggers; `pointillist bundle calibrate DIR --images PICTURES` makes one\n" in done.output
    monkeypatch.undo()
    monkeypatch.setattr(check_module, "check", lambda *_: found)
    (tmp_path / "file").touch()
    failed = run("bundle", "check", "scene", "--images", tmp_path, "--sheet", tmp_path / "file" / "sheet.png")
    assert "most often: a 12, b 8" in failed.output
    assert str(failed.exception).startswith("--sheet: expected a writable file")
