"""Drills of the whole system: `python -m benchmarks.reliability.drills NAME --json FILE`.

    fleet    32 cameras × 2 fps × 60 s from scenes, without probes and with 5 % of them
    kills    kill -9 of bridge, processor, recorder, Kafka, mosquitto, fleet, one after the other, under load
    outage   mosquitto, then Kafka, hangs for 30 s; then a spool too small for such an outage
    hostile  100,000 random, mutated and replayed payloads next to good traffic
    footage  each video, whole, in its own size
    camera   one 768×432 file at full speed, all processes on two cores
    large    one 1920×1080 camera at 15 frames/s for 60 s next to 8 scene cameras, all processes on two cores
    scale    two processors and two bridges, one of each killed, one processor added, under load
    replay   a wrong bundle is published and rolled back, and the console sends again the frames it rejected
    video    kills, a rebalance, a hanging decoder and full spools in the middle of groups of pictures
    scaling  four times the load and back, with processors that a controller adds and removes by the autoscaler's rule
    upgrade  every role is replaced by this release, one after the other, under load; `--baseline` is the earlier one
    rolling  three processors are restarted one after the other under 32 cameras × 4 fps
    restore  the state folder is deleted under load and restored from a backup, with and without Kafka's log
    backup   10 million rows are backed up and restored
    database PostgreSQL is killed for 60 s under load, and fails over to a standby
    oversize Kafka's limit is lowered under load, so that it refuses each whole frame
    nodes    three Kafka nodes: kill -9, hang, loss of a disk, rolling restart; a run each, 32 cameras × 4 fps × 300 s

Each drill starts `pointillist up` on an empty state folder, and ends with `pointillist audit`.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.harness.data_sets import sample_video, sample_videos
from benchmarks.harness.document import report
from benchmarks.harness.hostile import publish_hostile
from benchmarks.harness.records import rows
from benchmarks.harness.system import Result, RunningSystem, on_cores, summary
from benchmarks.reliability.database_outage import database
from benchmarks.reliability.groups import added_processor, groups
from benchmarks.reliability.nodes import FAULTS, nodes
from benchmarks.reliability.oversize import oversize
from benchmarks.reliability.replayed import replay
from benchmarks.reliability.restored import backup, restore
from benchmarks.reliability.scaling import rolling, scaling
from benchmarks.reliability.upgrade import newest_tag, upgrade
from benchmarks.scale.large_camera import large
from consumers.database.queries import open_records
from consumers.evidence.chain import Chain, alert_id
from infra.audit.kafka_files import read_topic
from infra.state_folder import Layout
from lab.strip.table import write_strip_table
from processors.bundle import StripSettings, read_settings, shipped_bundle
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe
from schemas.identity import CameraId
from schemas.messages.frame import PROFILES
from schemas.pointillist_pb2 import CHECKED, Alert
from schemas.runtime.json_files import read_json
from schemas.topics import KafkaTopic


def fleet(folder: Path, seconds: float = 60.0, cameras: int = 32) -> Result:
    """Run the main job, without probes and with 5 % of them."""
    results = {}
    for rate in (0, 0.05):
        state = folder / f"rate-{rate}"
        with RunningSystem(
            state, "--cameras", cameras, "--fps", 2, "--seconds", seconds, "--drop-ratio", 0.25, "--probe-share", rate
        ) as system:
            results[f"strip_rate_{rate}"] = summary(system.finish(), state)
    return results


def kills(folder: Path, pause_s: float = 6.0, cameras: int = 16) -> Result:
    """Kill every role once."""
    state = folder / "kills"
    roles = ("bridge", "processor-1", "recorder", "kafka", "mosquitto", "fleet")
    seconds = 10 + (pause_s + 6) * len(roles)
    with RunningSystem(state, "--cameras", cameras, "--fps", 5, "--seconds", seconds) as system:
        system.await_role("fleet")
        time.sleep(pause_s)
        restarted = {}
        for role in roles:
            restarted[role] = round(system.kill(role), 2)
            time.sleep(pause_s)
        return {"restarted_after_s": restarted, **summary(system.finish(), state)}


def outage(folder: Path, hang_s: float = 30.0, cameras: int = 8) -> Result:
    """Hang the brokers, so that spools fill and drain."""
    results = {}
    for broker in ("mosquitto", "kafka"):
        state = folder / broker
        with RunningSystem(state, "--cameras", cameras, "--fps", 5, "--seconds", hang_s + 30) as system:
            system.await_role("fleet")
            time.sleep(8)
            results[f"{broker}_hangs"] = _hang(system, broker, hang_s) | summary(system.finish(), state)
    state = folder / "small"
    options = ("--cameras", cameras, "--fps", 20, "--seconds", hang_s + 20, "--spool-bytes", 2**20)
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        time.sleep(5)
        results["spool_of_1_MiB"] = _hang(system, "mosquitto", hang_s) | summary(system.finish(), state)
    return results


def _hang(system: RunningSystem, broker: str, seconds: float) -> Result:
    before = system.resident_bytes("mosquitto")
    system.send(broker, signal.SIGSTOP)
    time.sleep(seconds)
    spooled = sum(file.stat().st_size for file in Layout(system.state).spool.rglob("*") if file.is_file())
    system.send(broker, signal.SIGCONT)
    time.sleep(3)
    grown = system.resident_bytes("mosquitto") - before
    return {"hang_s": seconds, "spooled_bytes_at_the_end": spooled, "mosquitto_grew_bytes": grown}


def hostile(folder: Path, messages: int = 100_000, cameras: int = 8, pause_s: float = 6.0) -> Result:
    """Publish hostile payloads from cameras with a valid enrolment, next to good traffic."""
    state = folder / "hostile"
    with RunningSystem(state, "--cameras", cameras, "--fps", 5) as system:
        system.await_role("fleet")
        time.sleep(pause_s)
        before = {role: system.resident_bytes(role) for role in ("bridge", "processor-1", "recorder")}
        names = [CameraId(f"local/cam-{index}") for index in range(cameras)]
        done = publish_hostile(system, messages, names)
        time.sleep(pause_s)
        grew = {role: system.resident_bytes(role) - size for role, size in before.items()}
        system.interrupt()
        report = system.finish()
    with open_records(Layout(state).database_url) as records:
        replays = records.duplicates()
    return {
        "hostile": messages,
        "hostile_per_second": messages / done.seconds,
        "thrown_out": done.thrown_out,
        "replays_removed": replays,
        "grew_bytes": grew,
        **summary(report, state),
    }


def footage(folder: Path) -> Result:
    """Send each video, whole, in its own size."""
    results = {}
    for video in sample_videos():
        state = folder / video.stem
        options = ("--cameras", 1, "--fps", 0, "--source", video, "--profile", "raw", "--probe-share", 0)
        with RunningSystem(state, *options, "--drain-s", 300) as system:
            system.await_role("fleet")
            cpu = system.cpu_until_end()
            report = system.finish()
        shown = summary(report, state)
        shown["cpu_ms_per_frame"] = {role: 1000 * used / report["frames_recorded"] for role, used in cpu.items()}
        shown["bytes_per_frame"] = report["bytes_sent"] / report["frames_recorded"]
        results[video.stem] = shown
    return results


def camera(folder: Path, cores: int = 2, times: int = 3, profile: str = "raw") -> Result:
    """Send one file of large frames at full speed, every process on the same few cores; r = .25, the scene bundle.

    Return the run of median speed, and all speeds.
    """
    file = sample_video()
    runs = sorted(
        (_at_full_speed(folder / f"camera-{n}", file, cores, profile) for n in range(times)),
        key=lambda run: float(run["frames_per_second"]),
    )
    return {**runs[times // 2], "frames_per_second_of_all": [run["frames_per_second"] for run in runs]}


def _at_full_speed(state: Path, file: Path, cores: int, profile: str) -> Result:
    options = (
        "--cameras", 1, "--fps", 0, "--source", file, "--profile", profile, "--drop-ratio", 0.25, "--probe-share", 0,
        "--drain-s", 300,
    )  # fmt: skip
    with on_cores(cores):
        with RunningSystem(state, *options, "--bundle", shipped_bundle("scene"), "--no-prometheus") as system:
            cpu = system.cpu_until_end()
            report = system.finish()
        shown = summary(report, state)
    # Start at the 20th frame: parts of the system are still starting before it.
    query = "select min(recorded_ms), max(recorded_ms), count(*) from frames where seq >= 20"
    ((first_ms, last_ms, count),) = rows(Layout(state).database, query)
    shown["frames_per_second"] = 1000 * (count - 1) / (last_ms - first_ms)
    shown["cpu_ms_per_frame"] = {role: 1000 * used / report["frames_recorded"] for role, used in cpu.items()}
    return shown


def scale(folder: Path, cameras: int = 16, pause_s: float = 8.0) -> Result:
    """Run two of each role, kill one of each, and add a processor.

    The bundle flags every probe, so that alerts are raised.
    """
    state = folder / "scale"
    bundle = suspicious_bundle(folder / "suspicious")
    options = ("--cameras", cameras, "--fps", 5, "--seconds", 20 + 4 * pause_s, "--processors", 2, "--bridges", 2)
    with RunningSystem(state, *options, "--probe-share", 0.1, "--bundle", bundle) as system:
        system.await_role("fleet")
        time.sleep(pause_s)
        restarted = {"bridge-1": round(system.kill("bridge-1"), 2)}
        time.sleep(pause_s)
        restarted["processor-2"] = round(system.kill("processor-2"), 2)
        time.sleep(pause_s)
        with added_processor(state, bundle):
            time.sleep(pause_s)
            report = system.finish()
    expected = expected_alerts(Layout(state))
    published = [
        Alert.FromString(record.value).alert_id
        for record in read_topic(Layout(state).kafka_data, KafkaTopic.ALERTS)
        if record.value
    ]
    return {
        "restarted_after_s": restarted,
        "alerts_expected": len(expected),
        "alerts_published_are_the_expected": set(published) == expected,
        **summary(report, state),
    }


def suspicious_bundle(folder: Path) -> Path:
    """Return the scene bundle with a STRIP threshold above any entropy."""
    shutil.copytree(shipped_bundle("scene"), folder)
    strip = read_settings(folder).strip
    assert strip is not None
    write_strip_table(folder, StripSettings(overlays=strip.overlays, threshold_bits=100.0, frr=strip.frr))
    return folder


def expected_alerts(layout: Layout) -> set[str]:
    """Return the alerts that the rule gives on the recorded probes, recomputed from the frames alone."""
    probes: dict[tuple[str, int], list[Probe]] = {}
    classes: dict[tuple[str, int], list[int]] = {}
    columns = "camera, boot, seq, strip, entropy_bits, threshold_bits, flagged, class_id"
    for camera, boot, seq, strip, entropy, threshold, flagged, class_id in rows(
        layout.database, f"select {columns} from frames order by seq"
    ):
        # No frame is missing after a run, so the index of a verdict is its sequence number.
        classes.setdefault((camera, boot), []).append(class_id)
        if strip == CHECKED:
            found = Probe(seq, entropy, threshold, bool(flagged), class_id)
            probes.setdefault((camera, boot), []).append(found)
    expected = set()
    for (camera, boot), found_in in probes.items():
        verdicts = classes[camera, boot]
        chain = Chain().fold(found_in)
        _, alerts = chain.read(found_in[-1].seq + 1, EvidenceRule(), lambda a, b, of=verdicts: of[a : b + 1])  # type: ignore[misc]  # the default binds the loop's value
        expected |= {alert_id(camera, boot, alarm.run[-1].seq, kind) for kind, alarm in alerts}
    return expected


DRILLS: Final[dict[str, Callable[..., Result]]] = {
    "fleet": fleet,
    "kills": kills,
    "outage": outage,
    "hostile": hostile,
    "footage": footage,
    "camera": camera,
    "large": large,
    "scale": scale,
    "replay": replay,
    "video": groups,
    "nodes": nodes,
    "scaling": scaling,
    "upgrade": upgrade,
    "rolling": rolling,
    "restore": restore,
    "backup": backup,
    "database": database,
    "oversize": oversize,
}


TAKES: Final = {
    "nodes": {"fault", "fps", "seconds"},
    "large": {"cameras", "fps", "profile"},
    "camera": {"profile"},
    "upgrade": {"baseline"},
}
"""The options of the drills that have some, besides `--json`."""


def main() -> None:
    """Run one drill, print its result, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DRILLS)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--fault", choices=FAULTS, action="append", help="nodes: run only this fault; the file keeps the others"
    )
    parser.add_argument("--fps", type=float, help="large, nodes: frames per second of each camera (default: 15; 4)")
    parser.add_argument("--cameras", type=int, help="large: number of 1920×1080 cameras (default: 1)")
    parser.add_argument("--profile", choices=PROFILES, help="camera, large: coding of the large frames (default: raw)")
    parser.add_argument("--seconds", type=float, help="nodes: length of the run of each fault (default: 300)")
    parser.add_argument("--baseline", help="upgrade: git revision of the earlier release (default: the newest tag)")
    arguments = parser.parse_args()
    options = vars(arguments)
    name, file = options.pop("name"), options.pop("json")
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - TAKES.get(name, set()):
        parser.error(f"--{option}: expected one of the drills {_takers(option)} with this option, got {name}")
    if name == "upgrade" and "baseline" not in given:
        given["baseline"] = newest_tag()
        if given["baseline"] is None:
            parser.error("--baseline: expected a git revision, got none, and there is no tag. Name a revision.")
    earlier: Result = {}
    if "fault" in given:
        given["faults"] = given.pop("fault")
        earlier = read_json(file).get("result", {}) if file else {}
    with tempfile.TemporaryDirectory(prefix="pointillist-drill-") as folder:
        result = DRILLS[name](Path(folder), **given)
    if earlier:
        found = earlier | result
        result = {fault: found[fault] for fault in FAULTS if fault in found}
    report({"drill": name, "result": result}, file)


def _takers(option: str) -> str:
    return ", ".join(name for name, taken in TAKES.items() if option in taken)


if __name__ == "__main__":
    main()
