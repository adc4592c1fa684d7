"""An attacker at the brokers, without any key, tries to make the audit report frames lost that nobody published."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks._stranger import Stranger, await_frames, now_ms, p99_s, query, refused
from benchmarks.security.attacks.outcome import Outcome
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import Ledger
from schemas.topics import Channel, mqtt_topic

CAMERAS: Final = 4
CLAIMED: Final = 999_900
"""Frames that a forged ledger claims as published and confirmed."""
BEFORE_S: Final = 10.0
DURING_S: Final = 15.0
WHAT: Final = (
    "With stolen certificates of roles, published as each camera's ledger, and produced into Kafka, unsigned and under "
    f"a key of his own: boots that never were, and the running boots in a far revision, with {CLAIMED} frames each"
)


def attack(folder: Path) -> Outcome:
    """Succeed if the audit, during the run or at its end, counts a frame as lost."""
    state = folder / "forged-ledger"
    with RunningSystem(state, "--cameras", CAMERAS, "--fps", 5) as system:
        system.await_role("fleet")
        layout = Layout(state)
        await_frames(layout, CAMERAS)
        with Stranger(system) as stranger:
            begun_ms = now_ms()
            time.sleep(BEFORE_S)
            attacked_ms = now_ms()
            boots = query(layout, "select distinct camera, boot from frames")
            for number in range(round(DURING_S)):
                for name, boot in boots:
                    camera = CameraId(str(name))
                    for boot_id in (int(str(boot)), 1 + number):
                        _forge(stranger, camera, boot_id)
                time.sleep(1)
            ended_ms = now_ms()
        lost_running = int(audit(state)[1]["frames_lost"])
        seen: dict[str, Any] = {
            "lost_by_the_audit_of_the_running_system": lost_running,
            "dead_letters": refused(layout),
            "thrown_out_by_the_mqtt_broker": stranger.thrown_out,
        }
        before, during = p99_s(layout, begun_ms, attacked_ms), p99_s(layout, attacked_ms, ended_ms)
        system.process.send_signal(signal.SIGINT)
        status, _ = system.wait(240)
    lost = int(audit(state)[1]["frames_lost"])
    seen["exit_status_of_up"] = status
    return Outcome(WHAT, bool(lost_running or lost), lost, before, during, seen)


def _forge(stranger: Stranger, camera: CameraId, boot_id: int) -> None:
    ledger = Ledger(
        boot_id=boot_id, revision=2**40, started_ms=now_ms(), first=0, next=CLAIMED, confirmed_to=CLAIMED, closed=True
    )
    own = derive_camera_key(b"the secret of a stranger's fleet", camera)
    for payload in (ledger.SerializeToString(), sign_message(own, ledger)):
        stranger.publish(mqtt_topic(camera, Channel.EVENT), payload)
        stranger.produce(Ledger, [(camera, payload)])
