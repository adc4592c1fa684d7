"""The drill `replay`: frames that a wrong bundle rejected are recorded by the right one later; see
`benchmarks.reliability.drills`.

The wrong bundle loads: its network accepts the black picture with which every bundle is tested. For any other picture
its output is not a number, because its input scale is wrong. This holds in torch; a backend that skips NaN would give a
class. The bundle is published like an operator's, and every frame becomes a dead letter.

Then it is rolled back, and the console's API sends the dead letters again: those of small frames, of frames too large
for a dead letter, and of both profiles.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from benchmarks.harness.records import rows
from benchmarks.harness.system import COMMAND, Result, RunningSystem, summary
from benchmarks.harness.waiting import wait_until
from infra.audit.kafka_files import read_topic
from infra.state_folder import Layout
from processors.bundle import shipped_bundle
from schemas.pointillist_pb2 import Verdict
from schemas.topics import KafkaTopic

FPS: Final = 4
SETTLED_S: Final = 3.0
"""Time without another dead letter. Then the right bundle serves again, and the wrong one rejects no more frames."""
PATIENCE_S: Final = 60.0
_WRONG: Final = {"version": '"wrong"', "mean": "[0.0, 0.0, 0.0]", "std": "[1e-40, 1e-40, 1e-40]"}


def scenario(cameras: int) -> dict[str, Any]:
    """Return a scenario: `cameras` of 32×32 scenes, a quarter as many of 96×64, and as many with `lossless`."""
    usual = {"fps": FPS, "drop_ratio": 0.25, "probe_share": 0.05}
    scenes, some = {"kind": "scene"}, max(1, cameras // 4)
    return {
        "site": "local",
        "cameras": [
            {"name": "cam-{index}", "count": cameras, "source": scenes} | usual,
            {"name": "large-{index}", "count": some, "source": scenes | {"size": [96, 64]}} | usual,
            {"name": "lossless-{index}", "count": some, "source": scenes, "profile": "lossless"} | usual,
        ],
    }


def wrong_bundle(folder: Path) -> Path:
    """Return the scene bundle with a scale under which the network overflows for all but black pictures."""
    shutil.copytree(shipped_bundle("scene"), folder)
    file = folder / "model.toml"
    text = file.read_text()
    for key, value in _WRONG.items():
        text, found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert found == 1
    file.write_text(text)
    return folder


def replay(folder: Path, cameras: int = 8, pause_s: float = 8.0) -> Result:
    """Run the right bundle, the wrong one for `pause_s`, and the right one again, then replay all rejected frames."""
    folder.mkdir(parents=True, exist_ok=True)
    state, file = folder / "replay", folder / "replay.yaml"
    file.write_text(yaml.safe_dump(scenario(cameras)))
    wrong = wrong_bundle(folder / "wrong")
    options = ("--scenario", file, "--bundle", shipped_bundle("scene"), "--backend", "torch", "--precision", "float32")
    with RunningSystem(state, *options, "--no-prometheus") as system:
        system.await_role("fleet")
        time.sleep(pause_s)
        _model(state, "publish", str(wrong))
        time.sleep(pause_s)
        _model(state, "rollback")
        owner = {"Authorization": f"Bearer {Layout(state).owner_token.read_text().strip()}"}
        url = f"http://{system.roles()['console']['listen']}/api/v1"
        with httpx2.Client(base_url=url, headers=owner, timeout=90) as api:
            letters = _settled(lambda: _letters(api))
            answers = {reason: _replayed(api, reason) for reason in letters}
            wait_until(
                lambda: api.get("/audit").json().get("frames_dead_lettered") == 0,
                "all recorded",
                PATIENCE_S,
                system=system,
            )
            again = {reason: _replayed(api, reason) for reason in letters}
        system.interrupt()
        report = system.finish()
    return {
        "dead_letters": letters,
        "replayed": answers,
        "replayed_again": again,
        **counted(Layout(state)),
        **summary(report, state),
    }


def counted(layout: Layout) -> Result:
    """Return the rows and verdicts of a run that has ended, and the number of duplicates among them."""
    identities = Counter(rows(layout.database, "select camera, boot, seq from frames"))
    judged: Counter[tuple[bytes | None, int, int]] = Counter()
    for record in read_topic(layout.kafka_data, KafkaTopic.VERDICTS):
        verdict = Verdict.FromString(record.value or b"")
        judged[record.key, verdict.boot_id, verdict.seq] += 1
    return {
        "verdicts": judged.total(),
        "recorded_twice": identities.total() - len(identities),
        "judged_twice": judged.total() - len(judged),
    }


def _model(state: Path, *arguments: str) -> None:
    done = subprocess.run(
        [*COMMAND, "model", *arguments, "--state", str(state)], check=False, capture_output=True, text=True, timeout=180
    )
    if done.returncode != 0:
        raise RuntimeError(f"model {arguments[0]}: expected status 0, got {done.returncode}: {done.stderr}")


def _letters(api: httpx2.Client) -> dict[str, int]:
    """Return the number of rejected frames by reason, without those of strangers."""
    counts: Counter[str] = Counter()
    for each in api.get("/dead-letters").json():
        counts[each["reason"]] += each["letters"] if each["verified"] else 0
    return dict(counts)


def _replayed(api: httpx2.Client, reason: str) -> str:
    answer = api.post("/dead-letters/replay", json={"reason": reason})
    answer.raise_for_status()
    return str(answer.json()["outcome"])


def _settled(read: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Return the result of `read` after it is not empty and has not changed for a while."""
    found, since, end = read(), time.monotonic(), time.monotonic() + PATIENCE_S
    while not found or time.monotonic() - since < SETTLED_S:
        if time.monotonic() > end:
            raise TimeoutError(f"dead letters: expected a constant number within {PATIENCE_S:g} s, got {found}")
        time.sleep(0.25)
        now = read()
        if now != found:
            found, since = now, time.monotonic()
    return found
