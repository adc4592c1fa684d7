"""A console of two sites with objects of every kind, and the state that a request could change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select

from consumers.cameras.state import State
from consumers.console.access.rights import Person, Right, Roles
from consumers.console.access.users import write_user
from consumers.console.actions import dead_letters
from consumers.console.data.cards import Card
from consumers.console.data.drop_policies import new_policy, read_policies, save_policy
from consumers.console.data.kept_clips import ASKED, ClipRequest, kept_clips
from consumers.console.data.pictures import AS_SENT
from consumers.console.data.presets import new_preset, save_preset
from consumers.console.data.rules import FiringRule, Rules
from consumers.console.data.site_documents import Names, SiteAlert
from consumers.console.data.sites import Site
from consumers.console.data.switches import Switch, add_switch
from consumers.console.jobs import rows as job_rows
from consumers.console.jobs.rows import Job, JobKind, JobState
from consumers.console.replay import Letter, ReplayOutcome
from consumers.database.changes import change_recorded
from consumers.database.comparisons import save_comparisons
from consumers.database.console_store import AuditLog
from consumers.database.engine import SETTLED_MS
from consumers.database.mutes import new_mute, save_mute
from consumers.database.tables import quarantine
from consumers.sightings.rules_table import new_rule, save_rule
from schemas.clock import monotonic_ms
from schemas.identity import CameraId
from schemas.messages.server_messages import seal_difference
from schemas.pointillist_pb2 import Answer, Comparison
from tests.consumers.console_rig import jpeg_scene, poll, raise_alert
from tests.consumers.jobs_rig import JobsRig, fill_job_folder
from tests.consumers.recorder_rig import BOOT, KEYS, PNG, Rig, dead_letter, verdict

OURS, THEIRS = "north/gate", "south/vault"
MARKS = (b"south", b"vault")
"""Texts that only objects of the other site contain."""
_ALERTS = {OURS: "a1" * 16, THEIRS: "b2" * 16}
_JOBS = {OURS: "a1" * 8, THEIRS: "b2" * 8}
BEGUN_MS = 5
CLIP_MS = time.time_ns() // 10**6 - 120_000
"""The moment of the stored clips: recent, since old clips are purged."""


def remote_site() -> Site:
    """Return an unreachable site of another console, which users of our site must not see."""
    names = Names("southern", "local", "https://southern.example")
    card = Card("southern/vault", State.ALERT, "vault open", alert="c3" * 16, console="https://southern.example/camera")
    alert = SiteAlert("c3" * 16, card.name, "strip", 5, 8, 7, "open", "https://southern.example/alerts")
    found = Site(names.here, names.url, (card,), (alert,), None, "no audit of southern", 5, problem="southern is away")
    return found.gone()


class RecordedCalls:
    """A stand-in for commands and views that records the camera of each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def send(self, camera: str, changes: dict[str, Any]) -> str:
        """Record a command."""
        self.calls.append(("command", f"{camera} {changes}"))
        return "confirmed"

    def reset(self, camera: str) -> str:
        """Record a command."""
        self.calls.append(("reset", camera))
        return "confirmed"

    def note(self, camera: str) -> None:
        """Record an open page."""
        self.calls.append(("view", camera))

    def certify(self, camera: str, frames: int) -> None:
        """Record a request."""
        self.calls.append(("certify", f"{camera} {frames}"))

    async def replay(self, _kafka: object, _topic: str, found: Sequence[Letter], recorded: int) -> ReplayOutcome:
        """Record a replay."""
        self.calls += [("replay", each.camera) for each in found]
        return ReplayOutcome(len(found), recorded)


class TwoSites:
    """A console whose cameras belong to two sites."""

    def __init__(self, folder: Path, recorder: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.recorder = folder, recorder
        write_user(folder / "users", "root", Right.ADMIN, "a long password")
        fill_job_folder(folder / "jobs")
        self.rig = JobsRig(folder, users=folder / "users")
        self.context = self.rig.console.context
        self.calls = RecordedCalls()
        self.context.commands = self.calls  # type: ignore[assignment]  # the two methods that pages call
        self.context.views = self.calls  # type: ignore[assignment]  # the same
        monkeypatch.setattr(dead_letters, "replay", self.calls.replay)
        monkeypatch.setitem(SETTLED_MS, "sqlite", 0)  # exports include frames that have just been recorded
        for camera in (OURS, THEIRS):
            self._fill(camera)
        save_preset(self.context.store.engine, new_preset({"name": "night", "enabled": False}, "root", 5))
        self._add_firing_rules()
        poll(self.rig.console)
        self.context.fleet.tick(monotonic_ms())
        self.context.fleet.show_sites([remote_site()])

    def _fill(self, camera: str) -> None:
        recorder, store, site = self.recorder, self.context.store, camera.partition("/")[0]
        made = [verdict(seq, class_name=f"class of {site}", evidence=b"") for seq in range(3)]
        recorder.verdicts(made, camera)
        self.rig.console.show([verdict(3, class_name=f"class of {site}", preview=jpeg_scene(len(site)))], camera)
        raise_alert(recorder, _ALERTS[camera], camera)
        recorder.letter(dead_letter(9, verified=True, camera_id=camera, error=f"of {site}", payload=b"payload"))
        name = f"{camera}/{1:016x}-7"
        file = self.folder / "quarantine" / f"{name}.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(PNG)
        live = Answer(class_id=1, class_name=f"live of {site}")
        comparison = Comparison(boot_id=BOOT, seq=1, begun_ms=BEGUN_MS, live=live, picture=jpeg_scene())
        seal_difference(comparison, CameraId(camera), KEYS)
        with recorder.engine.begin() as connection:
            connection.execute(insert(quarantine), [{"name": name, "at_ms": 5, "bytes": len(PNG)}])
            save_comparisons(connection, [(camera, comparison)], 1)
        mute = new_mute(f"{site}/muted", "1h", f"reason of {site}", "root", time.time_ns() // 10**6)
        change_recorded(recorder.url, lambda each: save_mute(each, mute))
        seen = new_rule({"cameras": camera, "wanted": "vehicle"}, f"watcher of {site}", 5)
        change_recorded(recorder.url, lambda each: save_rule(each, seen))
        policy = new_policy({"cameras": camera, "lowest": 0.25, "highest": 0.5}, f"admin of {site}", 5)
        save_policy(store.engine, policy)
        add_switch(store.engine, Switch(0, f"{site}/*", "night", {}, f"switcher of {site}", 5, [camera]))
        self.context.drop_plan.adopt(read_policies(store.engine))
        store.note(policy.name, "drop policy", camera, f"ratio of {site}", "confirmed", log=AuditLog.POLICIES)
        store.comment(_ALERTS[camera], "root", f"comment of {site}")
        store.note("root", "command", camera, f"detail of {site}", "done")
        store.note("root", "alert", _ALERTS[camera], f"decision of {site}", "done", site)
        job = Job(_JOBS[camera], JobKind.REPAIR, "own", f"job of {site}", camera, "root", 5, 6, JobState.CANCELLED)
        job_rows.begin(store.engine, job)
        labels = self.context.labelled_frames
        assert labels is not None
        labels.keep((camera, 1, 7), jpeg_scene(3), "new", f"seen of {site}", 0.9)
        labels.keep((camera, 1, 8), jpeg_scene(4), "new", f"seen of {site}", 0.9, f"label of {site}", "root")
        labels.collect(camera, "root", wanted=True)
        clips = self.context.clips
        assert clips is not None
        clips.request([(camera, CLIP_MS)], ASKED, f"asked of {site}")
        with store.engine.begin() as connection:
            [clip] = connection.scalars(select(kept_clips.c.name).where(kept_clips.c.camera == camera))
        clips.keep(ClipRequest(clip, camera, CLIP_MS), b"film")

    def _add_firing_rules(self) -> None:
        firing = [
            FiringRule("PointillistSilent", "critical", each, f"{each} is silent", "", 5) for each in (OURS, THEIRS)
        ]
        self.context.watch.no_rules = ""
        self.context.watch.rules = Rules(tuple(firing), ("PointillistQuiet",))

    def path_parts(self, camera: str) -> dict[str, str]:
        """Return the path parameters that lead to the objects of one camera."""
        site, _, name = camera.partition("/")
        known = camera in _ALERTS
        return {
            "site": site,
            "camera": name,
            "alert_id": _ALERTS[camera] if known else "f" * 32,
            "job_id": _JOBS[camera] if known else "f" * 16,
            "topic": self.recorder.settings.dead_letters_topic,
            "partition": "0",
            "offset": str((OURS, THEIRS).index(camera)) if known else "99",
            "kind": AS_SENT,
            "frame": f"{1:016x}-7",
            "begun_ms": str(BEGUN_MS),
            "boot": str(BOOT),
            "seq": "1",
        }

    def add_repair(self, camera: str) -> str:
        """Store a finished repair with its bundle. Return its id."""
        job_id = hashlib.sha256(camera.encode()).hexdigest()[:16]
        out = self.folder / "jobs" / "runs" / job_id / "out"
        out.mkdir(parents=True)
        (out / "model.toml").write_text('name = "sick"\nversion = "1-repaired"\n')
        job = Job(job_id, JobKind.REPAIR, "own", f"of {camera}", camera, "root", 7, 8, JobState.DONE)
        job_rows.begin(self.context.store.engine, job)
        return job_id

    def session(self, roles: str) -> tuple[str, str]:
        """Begin a session with these roles. Return its cookie and the token of its forms."""
        token = self.context.sessions.begin(Person("eve", Roles.parse(roles)))
        session = self.context.sessions.find(token)
        assert session is not None
        return token, session.csrf

    def their_state(self) -> dict[str, list[str]]:
        """Return all rows, files, calls and states of the other site, except what a console derives."""
        found: dict[str, list[str]] = {"calls": [str(each) for each in self.calls.calls if _is_theirs(str(each))]}
        for engine in (self.recorder.engine, self.context.store.engine):
            found |= _rows(engine)
        files = (f"{parent}/{name}" for parent, _, names in os.walk(self.folder) for name in names)
        found["files"] = sorted(each for each in files if _is_theirs(each.removeprefix(str(self.folder))))
        card = self.context.fleet.card(THEIRS)
        found["fleet"] = ["" if card is None else json.dumps([card.alert, card.acknowledged, card.muted_reason])]
        found["jobs"] = [str(self.rig.jobs.running)]
        return found

    async def close(self) -> None:
        """Stop the jobs and close the console."""
        await self.rig.close()


_THEIR_IDS = (_ALERTS[THEIRS], _JOBS[THEIRS], *(mark.decode() for mark in MARKS))


def _is_theirs(line: str) -> bool:
    return any(each in line for each in _THEIR_IDS)


def _rows(engine: Engine) -> dict[str, list[str]]:
    found = {}
    with engine.begin() as connection:
        cursor = connection.connection.cursor()  # faster than SQLAlchemy for the many readings of a few rows
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT * FROM "{table}"')
            found[table] = sorted(line for line in map(str, cursor.fetchall()) if _is_theirs(line))
    return found
