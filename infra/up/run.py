"""One run of the whole system: start, watch, drain, stop, report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from consumers.console.settings import is_local
from consumers.console.users import read_users
from infra.audit import Audit, audit, unsettled
from infra.environment import Environment, accepted_generations
from infra.layout import Layout, issue_role_secrets, write_private
from infra.local.files import write_json
from infra.local.kafka import KafkaNodes
from infra.local.mosquitto import Mosquitto
from infra.local.ports import Ports
from infra.local.role_table import RoleTable
from infra.local.room import Room
from infra.local.topics import create_topics, pointillist_topics
from infra.pki.kafka_rights import grant
from infra.report import report
from infra.role import address
from infra.up.identities import prepare_identities
from infra.up.processes import FLEET_PENDING, LocalRoles, Role
from infra.up.settings import UpSettings, bundle_folder, camera_messages, checks_for_triggers, scenario_document
from infra.up.supervisor import Supervisor
from infra.up.system_state import PAGES, CameraState, camera_states
from infra.up.table import LiveTable
from infra.up.watching import Watching, check_receivers
from producers.publisher.told import overridden, read_told
from producers.redteam.team import RedTeam
from producers.scenario import Scenario, parse_scenario
from producers.start import fleet_started
from schemas.errors import ConfigError, StateError, UserError
from schemas.runtime.disk import is_full

READY_S = 120.0
STOP_S = 15.0
FRAME_PARTITIONS = 6
TICK_S = 0.1


INTERRUPTED = 130
"""Exit status of a run that was interrupted before its cameras started."""


class InterruptedStart(UserError):  # noqa: N818  # what happened, not an error
    """The person asked to stop before the cameras started."""

    exit_code = INTERRUPTED


@dataclass
class Interrupts:
    """How often the person asked to stop."""

    count: int = 0

    def stop_here(self) -> None:
        """Raise when the person has asked to stop."""
        if self.count:
            raise InterruptedStart("stopped before the cameras started")

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Count one."""
        self.count += 1


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """SIGINT and SIGTERM are counted instead of raised while the block runs."""
    counter = Interrupts()
    before = {number: signal.signal(number, counter) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield counter
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_up(settings: UpSettings, environment: Environment, table: LiveTable) -> tuple[int, dict[str, Any]]:
    """Run the system; the exit status (0 when nothing is lost or pending) and the report.

    Raises UserError for what the person can mend; whatever was started is stopped again.
    """
    document = scenario_document(settings, environment.data)
    scenario = parse_scenario(document)
    # What is missing for an attack is said now, and not when all else runs.
    RedTeam(scenario.generators).close()
    check_receivers(settings)
    layout = Layout(settings.state.resolve())
    with RoleTable(layout.folder) as roles, interrupts() as asked:
        roles.kill_leftovers()
        run = _Run(settings, layout, roles, table, asked)
        try:
            try:
                run.prepare(scenario, document)
                run.start()
            except OSError as error:
                if not is_full(error):
                    raise
                raise StateError(f"expected room on the disk of {layout.folder}, it is full") from None
            run.watch()
            run.drain()
        finally:
            run.stop()
        return run.finish()


class _Run:
    def __init__(
        self, settings: UpSettings, layout: Layout, table: RoleTable, live: LiveTable, asked: Interrupts
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._live = live
        self._asked = asked
        self._ports = Ports(layout.folder)
        self._supervisor = Supervisor(table, Room(layout.folder), live.say)
        pki = None if settings.plain else layout.pki
        self._mosquitto = Mosquitto(layout.folder, self._ports, pki=pki)
        self._kafka = KafkaNodes(layout.folder, self._ports, settings.kafka_nodes, pki)
        self._begun = time.monotonic()
        self._started_ms = time.time_ns() // 10**6
        self._startup_s = 0.0
        self._brokers: list[Role] = []
        self._roles: list[Role] = []
        self._foreign_before = 0
        self._fleet: Role | None = None
        self._watching = Watching(settings, layout, self._ports)
        self._camera_messages: float | None = None

    def prepare(self, scenario: Scenario, document: dict[str, Any]) -> None:
        """Lay down the scenario, the keys and what this run is."""
        self._check_users()
        issue_role_secrets(self._layout.roles, self._layout.fleet_secret())
        self._layout.signer()
        if not self._layout.generations.exists():
            write_json(self._layout.generations, {})
        generations = accepted_generations(self._layout.generations)
        cameras = [camera.camera_id for camera in scenario.cameras()]
        self._camera_messages = camera_messages(camera.fps for camera in scenario.cameras())
        for camera_id in cameras:
            self._layout.issue_key(camera_id, generations.get(camera_id, 0))
        if not self._settings.plain:
            prepare_identities(self._layout, cameras, self._settings)
        if self._settings.report is not None:
            write_report(self._settings.report, {})
        if self._layout.database.exists():
            found = audit(self._layout)
            self._foreign_before = found.foreign
            self._say_unread(found)
        self._say_unchecked(scenario)
        # Another run: its sources begin at their beginning, its faults count from its own start.
        fleet_started(self._layout.folder).unlink(missing_ok=True)
        self._say_what_was_told(scenario)
        # An address may hold a password: the scenario is for its owner only, and is not repeated elsewhere.
        write_private(self._layout.scenario, yaml.safe_dump(document, sort_keys=False))
        options = json.loads(self._settings.model_dump_json(exclude={"source"}))
        bundle = str(bundle_folder(self._settings))
        write_json(self._layout.run, {"started_ms": self._started_ms, "bundle": bundle, "options": options})

    def _check_users(self) -> None:
        """What the console would refuse, said before anything runs."""
        if self._settings.http is not None and not is_local(address(self._settings.http)[0]):
            if not self._layout.users.is_file():
                raise ConfigError(
                    f"--http: expected users where others reach the console, at {self._settings.http}: `pointillist "
                    f"user NAME --state {self._settings.state}` adds one"
                )
            read_users(self._layout.users)

    async def _furnish_kafka(self) -> None:
        """The topics, and who may do what."""
        admin = self._kafka.access("admin")
        furnishing = [create_topics(admin, pointillist_topics(FRAME_PARTITIONS, self._settings.kafka_nodes))]
        if not self._settings.plain:
            furnishing.append(grant(admin))
        await asyncio.gather(*furnishing)

    def _say_what_was_told(self, scenario: Scenario) -> None:
        """A command that a camera remembers holds, but not without a word, where this run asks for something else."""
        found = []
        for camera in scenario.cameras():
            told = read_told(self._layout.spool / camera.camera_id, camera.encoding, camera.fps)
            if overridden(camera.encoding, camera.fps, told):
                found.append(camera.camera_id)
        if found:
            self._live.say(
                f"{len(found)} of {len(scenario.cameras())} cameras obey commands instead of what this run asks, "
                f"the first is {found[0]}: see `pointillist camera told {found[0]}`"
            )

    def start(self) -> None:
        """Brokers, then our roles, then, when all are ready, the cameras."""
        mosquitto = Role("mosquitto", self._mosquitto, lambda: self._mosquitto.listen, log=self._mosquitto.log)
        kafka = [Role(node.role, node, partial(getattr, node, "listen"), log=node.log) for node in self._kafka.nodes]
        self._live.say("starting mosquitto and Kafka")
        self._brokers = [mosquitto, *kafka]
        # Side by side: no node of Kafka is ready before most are.
        with ThreadPoolExecutor(len(self._brokers)) as starting:
            for future in [starting.submit(self._supervisor.start, role) for role in self._brokers]:
                future.result()
        addresses = (self._mosquitto.listen, self._kafka.bootstrap)
        local = LocalRoles(self._settings, self._layout, self._ports, *addresses, self._camera_messages)
        recorder = local.recorder()
        self._roles = [*local.processors(), *local.bridges(), recorder, local.console(prometheus=self._watching.wanted)]
        if self._watching.wanted:
            self._roles.append(local.monitor())
        asyncio.run(self._furnish_kafka())
        for role in self._roles:
            self._asked.stop_here()
            self._supervisor.start(role)
        self._watching.start(self._begin_beside, self._live.say, f"http://{recorder.listen()}")
        self._live.say("waiting for the bridge, the processors and the recorder")
        self._supervisor.await_health(self._roles, READY_S, self._asked.stop_here)
        self._startup_s = time.monotonic() - self._begun
        self._fleet = local.fleet()
        self._supervisor.start(self._fleet)
        self._watching.scrape([*self._roles, self._fleet])
        pages = [role for role in self._brokers if role.name in PAGES]
        shown = {role.name: role for role in [*self._roles, self._fleet, *pages]}
        self._live.begin(shown, self._startup_s, self._broken_cameras)

    def _broken_cameras(self) -> list[CameraState]:
        return [camera for camera in camera_states(self._layout) if camera.broken]

    def _begin_beside(self, role: Role) -> None:
        self._brokers.append(role)
        self._supervisor.start(role)

    def watch(self) -> None:
        """Keep everything running until the fleet is done or the person asks to stop."""
        fleet = self._fleet
        assert fleet is not None
        while fleet.process.poll() not in fleet.final:
            self._supervisor.watch()
            self._live.tick()
            if self._asked.count:
                self._live.say("stopping: the cameras drain, interrupt again to stop at once")
                self._supervisor.forget(fleet.name)
                self._await_stopped(fleet)
                return
            time.sleep(TICK_S)
        if fleet.process.poll() == FLEET_PENDING:
            self._live.say("the cameras' spools still held frames at the drain deadline")

    def _await_stopped(self, fleet: Role) -> None:
        with ThreadPoolExecutor(1) as stopping:
            done = stopping.submit(fleet.process.stop, self._settings.drain_s + STOP_S)
            while not done.done() and self._asked.count < 2:
                self._supervisor.watch()
                time.sleep(TICK_S)
            if not done.done():
                fleet.process.stop(0)

    def drain(self) -> None:
        """Wait until every published frame has its record, at most until the deadline."""
        end = time.monotonic() + self._settings.drain_s
        while self._asked.count < 2 and time.monotonic() < end:
            self._supervisor.watch()
            self._live.tick()
            looked = time.monotonic()
            # A damaged database is out of place for a moment while the recorder puts a new one there.
            with contextlib.suppress(StateError):
                if unsettled(self._layout, self._started_ms) == 0:
                    return
            # Looking must not slow down what it waits for.
            time.sleep(max(0.3, 3 * (time.monotonic() - looked)))

    def stop(self) -> None:
        """Stop everything by pid, readers before what they read from."""
        self._live.end()
        self._watching.close()
        for role in [r for r in (self._fleet,) if r is not None] + self._roles[::-1] + self._brokers[::-1]:
            self._supervisor.forget(role.name)
        self._supervisor.close()
        bridges_first = sorted(self._roles, key=lambda role: not role.name.startswith("bridge"))
        for group in ([self._fleet] if self._fleet else [], bridges_first, self._brokers[::-1]):
            with ThreadPoolExecutor(8) as stopping:
                list(stopping.map(lambda role: self._supervisor.stop(role, STOP_S), group))

    def finish(self) -> tuple[int, dict[str, Any]]:
        """The exit status and the report, from what is on disk now."""
        found = audit(self._layout)
        restarts = self._supervisor.restarts
        document = report(found, self._layout, self._started_ms, self._foreign_before, self._startup_s, restarts)
        everything, here = found.counts(), found.counts(self._started_ms)
        left = here.frames_lost + here.frames_pending + here.frames_unread
        older = everything.frames_lost + everything.frames_pending + everything.frames_unread - left
        if older:
            self._live.say(f"{older} frames of earlier runs are lost, pending or unread: see `pointillist audit`")
        self._say_unread(found)
        status = 0 if left == 0 else 1
        if self._settings.report is not None:
            try:
                write_report(self._settings.report, document)
            except ConfigError as error:  # the run is over, and its report is printed all the same
                self._live.say(str(error))
                status = 1
        return status, document

    def _say_unchecked(self, scenario: Scenario) -> None:
        """Probes cost bytes and accuracy against an attacker; without STRIP they buy nothing."""
        probing = any(camera.probe_share > 0 for camera in scenario.cameras())
        folder = bundle_folder(self._settings)
        if probing and not checks_for_triggers(folder):
            self._live.say(
                f"the bundle {folder} has no [strip] table: no frame is checked for triggers, though cameras send some "
                "whole for that; `pointillist lab calibrate` makes the table, --strip-rate 0 sends none whole"
            )

    def _say_unread(self, found: Audit) -> None:
        for line in found.unread:
            self._live.say(f"unread: {line}")


def write_report(file: Path, document: dict[str, Any]) -> None:
    """Write the report as JSON; `ConfigError` when that cannot be done."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"--report: cannot write {file}: {error.strerror}") from None
