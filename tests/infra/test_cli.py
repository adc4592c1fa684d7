"""Commands that need no brokers, and the error lines of all commands for missing or invalid arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer
from sqlalchemy import make_url
from typer.core import TyperGroup

from consumers.console.access.owner import owner_name
from consumers.console.access.rights import Right
from consumers.console.access.tokens import Tokens
from consumers.console.access.users import read_users, remove_user, write_user
from consumers.console.data.store import Store
from infra.cli import MODULES, app, command_of, register, roles  # noqa: F401  # the import registers the commands
from infra.local.ports import free_port
from infra.local.process import COMMAND
from infra.process.metrics_server import role_registry, serve
from infra.state_folder import Layout
from infra.state_folder.environment import Environment, accepted_generations, fleet_secret
from infra.up import preparation
from infra.up.preparation import note_commands, note_unchecked_probes
from infra.up.scrape import Page, Samples
from infra.up.settings import (
    UpSettings,
    bundle_folder,
    camera_limits,
    scenario_document,
    scenario_file,
    source_entry,
)
from producers.bridge.quota import WINDOW_BYTES
from producers.camera.camera_settings import CameraOptions, Profile
from producers.simulation.scenario import load_scenario, parse_scenario
from producers.sources.settings import SourceSettings
from schemas.errors import BundleError, ConfigError, SecretError, SourceError
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, derive_camera_key
from schemas.metrics import END_TO_END
from schemas.runtime.health import Health
from tests.commands import run_command
from tests.conftest import fill
from tests.fetching import fetch, fetch_json
from tests.infra.command_line import call
from tests.processors.tiny import write_bundle
from tests.producers.stand_in_generator import write_generator

SECRET = "00112233445566778899aabbccddeeff"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POINTILLIST_")}
    return run_command(*arguments, environment=environment | variables)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error line of a command that exited with status 2."""
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_key_prints_the_key_that_the_server_derives() -> None:
    command = [*COMMAND, "key", "site/door", "--generation", "3"]
    environment = os.environ | {"POINTILLIST_FLEET_SECRET": SECRET}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0
    expected = derive_camera_key(bytes.fromhex(SECRET), CameraId("site/door"), 3)
    assert done.stdout.strip() == expected.export()
    assert CameraKey.from_export(CameraId("site/door"), done.stdout).generation == 3


def test_the_key_is_written_to_a_private_file_with_out(tmp_path: Path) -> None:
    file = tmp_path / "door.key"
    done = run("key", "site/door", "--out", str(file), POINTILLIST_FLEET_SECRET=SECRET)
    assert done.stdout == ""
    assert file.stat().st_mode & 0o077 == 0
    assert CameraKey.from_export(CameraId("site/door"), file.read_text()).generation == 0


def test_the_key_comes_from_the_state_folder_and_a_missing_folder_is_not_created(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    secret = layout.fleet_secret()
    done = run("key", "site/door", "--state", str(layout.folder), POINTILLIST_FLEET_SECRET=SECRET)
    assert done.stdout.strip() == derive_camera_key(secret, CameraId("site/door")).export()
    done = run("key", "site/door", "--state", str(tmp_path / "typo"), POINTILLIST_FLEET_SECRET=SECRET)
    assert "--state: expected a state folder" in refusal(done)
    assert not (tmp_path / "typo").exists()


CONSOLE = ("console", "--http", "127.0.0.1:0", "--kafka", "127.0.0.1:1", "--mqtt", "127.0.0.1:1", "--state", "/nowhere")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["key", "Door"], "site/camera"),
        (["bridge", "--mqtt", "127.0.0.1:1", "--kafka", "127.0.0.1:1", "--connect-timeout-s", "0.3"], "MQTT"),
        (["process", "--bundle", "scene", "--kafka", "127.0.0.1:1", "--connect-timeout-s", "0.3"], "Kafka"),
        (["process", "--bundle", "scene", "--kafka", "nowhere"], "host:port"),
        (["record", "--kafka", "127.0.0.1:1", "--state", "/nowhere", "--connect-timeout-s", "0.3"], "Kafka"),
        (["fleet", "--scenario", "/nowhere.yaml", "--state", "/nowhere"], "/nowhere.yaml"),
        (["audit", "--state", "/nowhere"], "/nowhere"),
        (["bridge"], "--kafka"),
        (["bridge", "--kafka", "127.0.0.1:1"], "--mqtt"),
        (["monitor", "--state", "/nowhere"], "--state: expected a state folder"),
        (["monitor", "--mqtt", "127.0.0.1:1", "--kafka", "127.0.0.1:1"], "database is missing"),
        (
            [
                "homeassistant",
                "--database",
                "sqlite:////nowhere/x",
                "--mqtt",
                "127.0.0.1:1",
                "--connect-timeout-s",
                "0.3",
            ],
            "MQTT",
        ),
        (["homeassistant", "--database", "sqlite:////nowhere/x", "--console", "here"], "--console"),
        ([*CONSOLE, "--jobs-signer", "/nowhere.key"], "--jobs-folder is missing"),
        (
            [*CONSOLE, "--prometheus", "http://me:secret@here"],
            "--prometheus: expected http://host:port or https://host:port, got 'here'",
        ),
        (["camera", "attach", "rtsp://127.0.0.1:1/x", "--name", "a/b", "--state", "/nowhere"], "/nowhere"),
        (["fleet", "--scenario", "/x.yaml", "--seconds", "inf"], "--seconds: expected"),
        (["audit", "--state", "/nowhere/:smile:/fd00::a:b"], "/nowhere/:smile:/fd00::a:b"),
        (["revoke", "a/b", "--state", __file__], "--state: expected a state folder"),
        (["restore", "--from", "http://127.0.0.1:1/x", "--state", "/nowhere"], "expected a folder or URL that answers"),
        (["token", "create", "a", "--file", "/proc/x", "--days", "1"], "/proc/x: expected a writable file"),
        (["lab", "stale", "--only", "certified", "--run", "--hours", "0", "--runs", "/dev/null/x"], "--runs: expected"),
    ],
)
def test_a_missing_or_invalid_argument_is_one_error_line_with_status_2(arguments: list[str], named: str) -> None:
    assert named in refusal(run(*arguments, POINTILLIST_FLEET_SECRET=SECRET))


def test_a_file_of_the_current_folder_never_replaces_a_module(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('mine')")
    done = subprocess.run([*COMMAND, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_seed_beyond_32_bits_is_rejected() -> None:
    arguments = ["lab", "evaluate", "--bundle", "scene", "--data", "x.npz", "--drop-ratio", "0", "--json", "x.json"]
    line = refusal(run(*arguments, "--seed", str(2**64)))
    assert f"--seed: expected at most 4294967295, got {2**64}. `" in line


@pytest.mark.parametrize("command", ["enroll", "rotate"])
@pytest.mark.parametrize("days", ["inf", "99999999"])
def test_a_certificate_for_too_many_days_is_rejected_before_anything_is_revoked(
    tmp_path: Path, command: str, days: str
) -> None:
    out = tmp_path / "door.enrolment"
    done = run(command, "yard/door", "--out", str(out), "--days", days, "--state", str(tmp_path / "none"))
    assert "--days: expected at most 7300" in refusal(done)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["bridge", "--mqtt", "user:hunter2@127.0.0.1:1", "--kafka", "127.0.0.1:1", "--connect-timeout-s", "0.1"],
        ["bridge", "--mqtt", "user:hunter2@127.0.0.1", "--kafka", "127.0.0.1:1"],
        ["homeassistant", "--mqtt", "user:hunter2@127.0.0.1:1", "--database", "sqlite:////nowhere/x"],
        ["process", "--bundle", "scene", "--kafka", "user:hunter2@127.0.0.1:1", "--connect-timeout-s", "0.1"],
        [
            "process",
            "--bundle",
            "scene",
            "--kafka",
            "127.0.0.1:1",
            "--metrics",
            "user:hunter2@h:1",
            "--connect-timeout-s",
            "0",
        ],
        ["model", "status", "--kafka", "user:hunter2@127.0.0.1:1", "--connect-timeout-s", "0.1"],
    ],
)
def test_a_password_in_a_brokers_address_is_rejected_and_not_repeated(arguments: list[str]) -> None:
    line = refusal(run(*arguments, POINTILLIST_FLEET_SECRET=SECRET))
    assert "hunter2" not in line
    assert "host:port" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--group", "recorders"], "group: expected a PostgreSQL database"),
        (["--database-age-s", "0"], "--database-age-s: expected number > 0"),
        (["--database-bytes", "-1"], "--database-bytes: expected whole number ≥ 65,536"),
    ],
)
def test_an_unsupported_setting_of_a_recorder_is_one_error_line(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    command = ["record", "--state", str(tmp_path), "--kafka", "127.0.0.1:1", "--connect-timeout-s", "0"]
    assert named in refusal(run(*command, *arguments, POINTILLIST_FLEET_SECRET=SECRET))


@pytest.mark.parametrize("content", [bytes(range(256)), b"\x00\x01", b"\xff\xfe"])
@pytest.mark.parametrize("command", ["up", "fleet"])
def test_a_binary_scenario_is_one_error_line(tmp_path: Path, command: str, content: bytes) -> None:
    (tmp_path / "scenario.yaml").write_bytes(content)
    done = run(command, "--scenario", str(tmp_path / "scenario.yaml"), "--state", str(tmp_path / "state"))
    assert "scenario.yaml" in refusal(done)


@pytest.mark.parametrize("place", ["folder", "file/door.key", "/proc/door.key"])
def test_a_key_that_cannot_be_written_is_one_error_line_and_leaves_no_files(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    out = tmp_path / place
    line = refusal(run("key", "site/door", "--out", str(out), POINTILLIST_FLEET_SECRET=SECRET))
    assert str(out) in line
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


def test_a_command_loads_only_its_modules_and_a_processor_checks_kafka_before_it_loads_torch() -> None:
    program = (
        "import sys, typer, infra.cli as cli\nfrom schemas.errors import UserError\n"
        "name = sys.argv[1]\n"
        "cli.register(cli.command_of(['--factories', 'a,b', name, '--help']))\n"
        "assert name in typer.main.get_command(cli.app).commands\n"
        "try: cli.app(sys.argv[1:])\n"
        "except UserError as refused: print(refused)\n"
        "print('torch' in sys.modules, 'infra.cli.doctor' in sys.modules)\n"
    )
    arguments = ["process", "--bundle", "scene", "--kafka", "127.0.0.1:1", "--connect-timeout-s", "0.1"]
    environment = os.environ | {"POINTILLIST_FLEET_SECRET": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True, env=environment
    )
    refused, loaded = done.stdout.splitlines()
    assert "Kafka broker at 127.0.0.1:1: expected a response within" in refused
    assert loaded == "False False"


def test_every_command_has_its_modules() -> None:
    register()
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert MODULES.keys() == group.commands.keys()
    for words in ([], ["--help"], ["--version", "key"], ["--factories"]):
        assert command_of(words) is None
    assert command_of(["--factories=own", "key", "--help"]) == "key"


def test_up_warns_of_a_bundle_that_checks_no_probes(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text('name = "street"\n')
    printed: list[str] = []
    for bundle, share in (("scene", 0.1), (tmp_path, 0), (tmp_path, 0.1)):
        settings = UpSettings(cameras=1, bundle=Path(bundle), probe_share=share)
        cameras = parse_scenario(scenario_document(settings, None)).cameras()
        note_unchecked_probes(settings, cameras, printed.append)
    (line,) = printed
    assert line.startswith(f"the bundle {tmp_path} has no [strip] table")
    assert f"`pointillist bundle calibrate {tmp_path} --images PICTURES`" in line


def test_up_prints_the_command_that_lists_the_stored_commands_of_a_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "overridden", lambda *_: True)
    printed: list[str] = []
    cameras = parse_scenario(scenario_document(UpSettings(cameras=1), None)).cameras()
    note_commands(Layout(tmp_path), cameras, printed.append)
    (line,) = printed
    assert f"`pointillist camera settings {cameras[0].camera_id} --state {tmp_path}`" in line


def test_the_factories_option_applies_to_every_command(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    publish = ["model", "publish", str(folder), "--kafka", "127.0.0.1:1", "--store", str(tmp_path / "store")]
    run("signer", "init", "ada", "--folder", str(tmp_path))
    publish += ["--connect-timeout-s", "0.1", "--signer", str(tmp_path / "ada.key")]
    assert "--factories" in refusal(run(*publish))
    assert "Kafka" in refusal(run("--factories", "tests.processors", *publish))


def test_a_processor_runs_code_of_its_bundle_only_with_permission(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    table = folder / "model.toml"
    table.write_text(table.read_text().replace("tests.processors.tiny:network", "network.py:network"))
    (folder / "network.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    process = ["process", "--kafka", "127.0.0.1:1", "--bundle", str(folder), "--connect-timeout-s", "0"]
    refused = run(*process, POINTILLIST_FLEET_SECRET=SECRET)
    assert refused.returncode == 2
    # Kafka is not reachable: the log lines about that come first.
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "the factory network.py:network: expected permission" in last
    assert "give --allow-code or POINTILLIST_ALLOW_CODE=1" in last
    assert not (tmp_path / "ran").exists()


def test_a_processor_does_not_start_with_unreadable_signers(tmp_path: Path) -> None:
    (tmp_path / "trusted").write_text("ada\n")
    for name, message in (("trusted", "trusted, line 1: expected a public key"), ("absent", "absent: No such file")):
        arguments = ["process", "--kafka", "127.0.0.1:1", "--bundle", "scene", "--trust", str(tmp_path / name)]
        with pytest.raises(ConfigError, match=message):
            call(*arguments)


def test_up_on_a_full_disk_is_one_error_line(small_disk: Path) -> None:
    fill(small_disk)
    assert "got a full disk" in refusal(run("up", "--state", str(small_disk / "state"), "--seconds", "1"))


def test_doctor_names_every_part() -> None:
    done = run("doctor")
    for part in (
        "mosquitto",
        "Java",
        "Kafka",
        "torch",
        "model bundles",
        "disk",
        "Prometheus",
        "Alertmanager",
        "Grafana",
        "data sets",
    ):
        assert part in done.stdout


def test_the_fleet_secret_is_read_from_a_variable_or_a_file_and_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POINTILLIST_FLEET_SECRET", "POINTILLIST_FLEET_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert fleet_secret(Environment(fleet_secret_file=file)) == bytes.fromhex(SECRET)
    for wrong in ("abcd", "hunter2 hunter2 hunter2 hunter2"):
        file.write_text(wrong)
        with pytest.raises(SecretError) as caught:
            fleet_secret(Environment(fleet_secret_file=file))
        assert wrong not in str(caught.value)
    with pytest.raises(SecretError, match="is missing: expected it in"):
        fleet_secret(Environment())


def test_an_invalid_file_of_generations_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "generations.json"
    with pytest.raises(ConfigError, match=r"generations\.json"):
        accepted_generations(file)
    file.write_text('{"site/door": 2}')
    assert accepted_generations(file) == {"site/door": 2}
    for wrong in ("{", "[]", '{"door": 1}', '{"site/door": -1}'):
        file.write_text(wrong)
        with pytest.raises(ConfigError):
            accepted_generations(file)


def test_the_health_page_answers_503_until_all_conditions_hold() -> None:
    health, port = Health(), free_port()
    server = serve(role_registry("test"), health, ("127.0.0.1", port))
    try:
        url = f"http://127.0.0.1:{port}/healthz"
        for ready in (False, True):
            if ready:
                health.set("kafka", True)
                assert fetch_json(url)["conditions"]["kafka"]["ok"]
            else:
                health.set("kafka", False, "not connected")
                with pytest.raises(urllib.error.HTTPError) as caught:
                    fetch(url)
                assert caught.value.code == 503
                caught.value.close()
        samples = Samples.scrape([f"127.0.0.1:{port}"])
        assert samples.sum("pointillist_build_info", role="test") == 1
        with pytest.raises(ConfigError, match="metrics: expected a free address"):
            serve(role_registry("other"), health, ("127.0.0.1", port))
    finally:
        server.shutdown()
        server.server_close()


def test_quantile_of_scraped_buckets_is_the_upper_bound() -> None:
    samples = Samples()
    name = END_TO_END.name
    page = Page.parse(
        f"# TYPE {name} histogram\n"
        f'{name}_bucket{{le="0.1"}} 90\n{name}_bucket{{le="0.5"}} 99\n{name}_bucket{{le="+Inf"}} 100\n'
    )
    samples.include(page.values)
    assert samples.quantile(0.9, name) == 0.1
    assert samples.quantile(0.99, name) == 0.5
    assert samples.quantile(0.5, "nothing") is None


def test_sources_become_scenarios(tmp_path: Path) -> None:
    video, data = tmp_path / "street.mp4", tmp_path / "cifar10.npz"
    video.touch()
    data.touch()
    assert source_entry("scene", 4, 2, None)["kind"] == "scene"
    assert source_entry("rtsp://camera/1", 1, 2, None) == {"kind": "url", "address": "rtsp://camera/1"}
    assert source_entry(str(video), 1, 0, None) == {"kind": "video", "file": str(video)}
    assert source_entry("cifar10", 4, 0, tmp_path)["stride"] == 4
    for missing in ("cifar11", "/nowhere.mp4"):
        with pytest.raises(SourceError, match=missing):
            source_entry(missing, 1, 2, None)
    with pytest.raises(SourceError, match="POINTILLIST_DATA"):
        source_entry("cifar10", 1, 2, None)
    scenario = parse_scenario(scenario_document(UpSettings(cameras=3, fps=4, drop_ratio=0.5, probe_share=0.1), None))
    cameras = scenario.cameras()
    assert [camera.camera_id for camera in cameras] == ["local/cam-0", "local/cam-1", "local/cam-2"]
    assert (cameras[0].fps, cameras[0].encoding.dropped_per_block, cameras[0].probe_share) == (4, 32, 0.1)


@pytest.mark.parametrize(
    ("source", "option", "profile"),
    [
        ("scene", None, "raw"),
        ("cifar10", None, "raw"),
        ("rtsp://camera/1", None, "video"),
        ("/dev/video0", None, "video"),
        ("street.mp4", None, "video"),
        ("street.mp4", "raw", "raw"),
        ("scene", "video", "video"),
    ],
)
def test_up_sends_real_sources_by_a_codec_unless_a_profile_is_given(
    source: str, option: Profile | None, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("street.mp4", "cifar10.npz"):
        Path(name).touch()
    scenario = parse_scenario(scenario_document(UpSettings(source=source, profile=option), tmp_path))
    assert {camera.profile for camera in scenario.cameras()} == {profile}


@pytest.mark.parametrize(
    ("source", "count", "names"),
    [
        ("rtsp://door/live", 1, ["local/camera"]),
        ("street.mp4", 1, ["local/camera"]),
        ("street.mp4", 2, ["local/camera-0", "local/camera-1"]),
        ("street.npz", 1, ["local/cam-0"]),
    ],
)
def test_a_real_camera_does_not_have_the_name_of_a_simulated_one(
    source: str, count: int, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("street.mp4", "street.npz"):
        Path(file).touch()
    scenario = parse_scenario(scenario_document(UpSettings(source=source, cameras=count), None))
    assert [camera.camera_id for camera in scenario.cameras()] == names


@pytest.mark.parametrize(
    ("command", "change", "named"),
    [
        ("fleet", {"eps": 7}, "faults.0.eps"),
        ("up", {"target": "unicorn"}, "'unicorn'"),
        ("up", {"eps": 0.5}, "generator.onnx is missing"),
    ],
)
def test_an_impossible_attack_is_one_error_line_before_anything_starts(
    tmp_path: Path, command: str, change: dict[str, object], named: str
) -> None:
    generator = write_generator(tmp_path / "generator")
    (generator / "generator.onnx").unlink()
    attack = {"camera": "door", "kind": "attack", "at_s": 1, "for_s": 9, "generator": str(generator)} | change
    file, state = tmp_path / "fleet.yaml", tmp_path / "state"
    file.write_text(json.dumps({"site": "a", "cameras": [{"name": "door"}], "faults": [attack]}))
    assert named in refusal(run(command, "--scenario", str(file), "--state", str(state)))
    assert not state.exists()


@pytest.mark.parametrize(
    ("options", "content", "named"),
    [
        ([], None, "No such file"),
        ([], "duty", "expected `receivers`"),
        ([], "receivers: [{name: duty, pigeon_configs: []}]", "expected a file that Alertmanager accepts"),
        (["--no-prometheus"], "receivers: [{name: duty}]", "expected a run with Prometheus, got --no-prometheus"),
    ],
)
def test_unusable_alert_receivers_are_one_error_line_before_anything_starts(
    tmp_path: Path, options: list[str], content: str | None, named: str
) -> None:
    file, state = tmp_path / "receivers.yml", tmp_path / "state"
    if content is not None:
        file.write_text(content)
    assert named in refusal(run("up", "--receivers", str(file), "--state", str(state), *options))
    assert not state.exists()


def test_a_shipped_scenario_is_found_by_name_unless_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = load_scenario(scenario_file(Path("red-team")))
    assert len(shipped.cameras()) == 16
    assert [len(fault.cameras) for fault in shipped.faults if fault.kind == "attack"] == [4]
    with pytest.raises(ConfigError, match="expected a file or one of red-team, sticker, got nothing"):
        scenario_file(Path("nothing"))
    own = Path("red-team")
    own.touch()
    assert scenario_file(own) == own


def test_bundles_are_found_by_folder_and_by_name(tmp_path: Path) -> None:
    assert bundle_folder(UpSettings()).name == "scene"
    assert bundle_folder(UpSettings(bundle=Path("scene"))) == bundle_folder(UpSettings())
    with pytest.raises(BundleError, match="nowhere"):
        bundle_folder(UpSettings(bundle=tmp_path / "nowhere"))


@pytest.mark.parametrize(("fps", "messages"), [([2.0, 5.0], 100.0), ([30.0, 1.0], 240.0), ([30.0, 0.0], None)])
def test_up_sets_the_message_quota_to_a_multiple_of_the_fastest_camera_s_rate(
    fps: list[float], messages: float | None
) -> None:
    found = camera_limits(UpSettings(), [CameraOptions(fps=each) for each in fps])
    assert (found and found.camera_messages_per_s) == messages


@pytest.mark.parametrize(
    ("source", "fps", "mib_per_s", "at_once"),
    [
        ({}, 2, 1, 1.753),
        ({"size": (1920, 1080)}, 5, 8 * 5 * 5.933, 69.9),
        ({"size": (1920, 1080), "channels": 1}, 0.5, 8 * 0.5 * 1.978, 65.9),
        ({"kind": "url", "address": "rtsp://door"}, 1, 8 * 640 * 480 * 3 / 2**20, 64.9),
    ],
)
def test_up_sets_the_byte_quota_to_a_multiple_of_the_largest_and_fastest_camera_s_rate(
    source: dict[str, object], fps: float, mib_per_s: float, at_once: float
) -> None:
    settings = {"name": "cam", "fps": fps, "source": source}
    cameras = parse_scenario({"site": "local", "cameras": [settings]}).cameras()
    found = camera_limits(UpSettings.model_validate({"processor": {"max_frame_pixels": 640 * 480}}), cameras)
    assert found is not None
    assert found.camera_bytes_per_s / 2**20 == pytest.approx(mib_per_s, rel=1e-2)
    assert found.camera_window_bytes / 2**20 == pytest.approx(at_once, rel=1e-2)


def test_up_keeps_the_usual_quota_for_a_list_unless_its_cameras_need_more() -> None:
    settings = UpSettings(cameras_file=Path("cameras.yaml"))
    assert camera_limits(settings, [CameraOptions(fps=2)]) == (2000, 128 * 2**20, WINDOW_BYTES)
    large = CameraOptions(fps=300, source=SourceSettings(kind="scene", size=(1920, 1080)))
    found = camera_limits(settings, [CameraOptions(fps=2), large])
    assert found is not None
    assert found.camera_messages_per_s == 8 * 300
    assert found.camera_bytes_per_s > 300 * 1920 * 1080 * 3


def users_command(folder: Path, *options: str, password: str = "") -> subprocess.CompletedProcess[str]:
    return run_command("user", *options, "--file", folder / "users", stdin=f"{password}\n")


def test_users_of_the_console_are_added_with_a_password_from_standard_input(tmp_path: Path) -> None:
    added = users_command(tmp_path, "add", "anna", "--role", "operator", password="a long password")
    assert (added.returncode, "anna may log in as operator" in added.stdout) == (0, True)
    assert "a long password" not in (tmp_path / "users").read_text() + added.stdout + added.stderr
    for options, password in ((("add", "anna"), "short"), (("add", "anna", "--role", "king"), "a long password")):
        refused = users_command(tmp_path, *options, password=password)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1


def test_tokens_of_the_console_are_created_listed_revoked_and_in_the_audit_log(tmp_path: Path) -> None:
    def token(*options: str) -> subprocess.CompletedProcess[str]:
        return run_command("token", *options, "--state", tmp_path)

    text = token("create", "ci", "--role", "operator", "--days", "7").stdout.strip()
    assert text.startswith("pointillist_")
    found = Tokens(tmp_path / "tokens").find(text)
    assert found is not None
    assert (found.name, str(found.roles), found.created_by) == ("ci", "operator", owner_name())
    assert found.expires_s - found.created_s == 7 * 86_400
    listed = token("list").stdout
    assert listed.startswith(f"ci operator, by {owner_name()}, expires 20")
    assert text not in listed
    assert token("create", "ci").stderr.startswith("error: name: expected a new one, got ci")
    assert token("create", "x", "--role", "king").stderr.startswith("error: role: expected viewer, operator or admin")
    assert token("revoke", "ci").returncode == 0
    assert token("list").stdout == ""
    store = Store(Layout(tmp_path).console_url)
    lines = [(each.who, each.what, each.subject, each.detail, each.outcome) for each in store.newest_operations()]
    store.close()
    who = owner_name()
    assert lines == [(who, "token", "ci", "", "revoked"), (who, "token", "ci", "operator, 7 days", "created")]


def test_tokens_and_users_are_created_even_if_the_audit_log_cannot_be_written(tmp_path: Path) -> None:
    Path(Layout(tmp_path).console_url.removeprefix("sqlite:///")).mkdir(parents=True)
    created = run_command("token", "create", "ci", "--state", tmp_path)
    assert created.returncode == 0
    assert Tokens(tmp_path / "tokens").find(created.stdout.strip()) is not None
    assert created.stderr.startswith("warning: audit log: expected a new line on this change, got ")
    assert len(created.stderr.splitlines()) == 1
    added = run_command("user", "add", "anna", "--state", tmp_path, stdin="a long password\n")
    assert (added.returncode, "anna may log in as viewer" in added.stdout) == (0, True)
    assert run_command("user", "remove", "anna", "--state", tmp_path).returncode == 0
    assert run_command("token", "revoke", "ci", "--state", tmp_path).returncode == 0


def test_users_of_the_console_are_listed_and_removed(tmp_path: Path) -> None:
    for name, role in (("vera", "viewer"), ("anna", "admin")):
        users_command(tmp_path, "add", name, "--role", role, password="a long password")
    assert users_command(tmp_path, "list").stdout == "anna admin\nvera viewer\n"
    unknown = users_command(tmp_path, "remove", "carl")
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (2, 1)
    assert "(vera, anna), got 'carl'" in unknown.stderr
    assert "No user is left" not in users_command(tmp_path, "remove", "vera").stdout
    assert users_command(tmp_path, "list").stdout == "anna admin\n"
    assert (tmp_path / "users").stat().st_mode & 0o777 == 0o600
    assert "No user is left" in users_command(tmp_path, "remove", "anna").stdout
    assert "Add a user by `pointillist user add NAME`" in users_command(tmp_path, "list").stderr
    assert users_command(tmp_path, "add", "anna", password="a long password").returncode == 0


def test_concurrent_changes_of_users_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "users"
    for number in range(4):
        write_user(file, f"old-{number}", Right.VIEWER, "a long password")

    def change(number: int) -> None:
        remove_user(file, f"old-{number}")
        write_user(file, f"new-{number}", Right.VIEWER, "a long password")

    with ThreadPoolExecutor(4) as commands:
        list(commands.map(change, range(4)))
    assert sorted(read_users(file)) == [f"new-{number}" for number in range(4)]


def test_up_serves_its_console_to_other_machines_only_with_users(tmp_path: Path) -> None:
    for options in (["--http", "0.0.0.0:18080"], ["--behind-proxy", "127.0.0.1"]):
        refused = run("up", "--state", str(tmp_path / "state"), *options)
        assert refused.returncode == 2
        assert "needs users" in refused.stderr
        assert "pointillist user add NAME" in refused.stderr


def test_a_character_that_the_terminal_lacks_is_printed_as_an_escape() -> None:
    program = "from infra import cli; cli._run = lambda: print('p99 \\u2264 0.5 s'); cli.main()"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert done.stdout == b"p99 \\u2264 0.5 s\n"


@pytest.mark.parametrize("name", ["plain", "a%20b", "a?b", "\u00fc #"])
def test_the_databases_are_in_a_state_folder_with_special_characters_in_its_name(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path / name)
    assert make_url(layout.database_url).database == str(layout.database)
    assert make_url(layout.console_url).database == str(layout.folder / "console.sqlite")
