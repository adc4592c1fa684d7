from __future__ import annotations

import pytest

from consumers.cameras.camera import Camera
from consumers.evidence.probe_shares import (
    Change,
    CommandedShare,
    ProbeCandidate,
    ProbePlanner,
    load_commanded,
    store_commanded,
)
from consumers.records.rows import CameraRow
from consumers.settings import ProbePlan
from schemas.pointillist_pb2 import LOSSLESS, CommandState, Meta
from tests.consumers.recorder_rig import MakeRig

PLAN = ProbePlan(extra_per_s=4.0, rising_share=1.0, new_share=0.5, new_extra=1.0, rising_level=0.2, again_s=3.0)


class Fleet:
    """Cameras with 20 % probes and, unless a test changes it, 2 frames per second."""

    def __init__(self, count: int = 3, plan: ProbePlan = PLAN) -> None:
        self.probing = ProbePlanner(plan)
        self.share = {f"lab/{n}": 0.2 for n in range(count)}
        self.rate = dict.fromkeys(self.share, 2.0)
        self.level = dict.fromkeys(self.share, 0.0)
        self.new = set[str]()
        self.known = set[str]()
        self.state: dict[str, CommandState] = {}
        """The applied commands of cameras that announce them."""
        self.now_s = 100.0

    def plan(self, *, obey: bool = True, strained: bool = False) -> dict[str, float]:
        """Plan the probe shares. Return the requested shares by camera; the cameras apply them if they `obey`."""
        for camera in self.known - set(self.share):
            self.probing.remove(camera)
        self.known = set(self.share)
        for camera, share in self.share.items():
            rate = self.rate[camera]
            meta = Meta(boot_id=1, probe_share=share, frames_per_second=rate, dropped_per_block=16, profile=LOSSLESS)
            if camera in self.state:
                meta.command_state.CopyFrom(self.state[camera])
            self.probing.observe(ProbeCandidate(camera, self.level[camera], camera in self.new, meta))
        changes = self.probing.changes(self.now_s, round(1000 * self.now_s), strained=strained)
        self.probing.remember(changes)
        requested = {each.camera: each.request.probe_share for each in changes if each.request is not None}
        if obey:
            self.share |= requested
            for camera in requested.keys() & self.state.keys():
                self.state[camera].asked_share = requested[camera]
        return requested

    def command(self, camera: str, share: float) -> None:
        """Command a share as an operator does; the camera obeys."""
        self.share[camera], self.state[camera] = share, CommandState(probe_share=share)


def test_a_camera_with_rising_evidence_probes_more_until_it_is_calm() -> None:
    fleet = Fleet()
    assert fleet.plan() == {}
    fleet.level["lab/1"] = 0.5
    assert fleet.plan() == {"lab/1": 1.0}
    assert fleet.plan() == {}
    fleet.level["lab/1"] = 0.0
    assert fleet.plan() == {"lab/1": 0.2}
    assert fleet.plan() == {}
    assert fleet.probing.commanded == {}


def test_a_new_camera_probes_more_until_it_has_a_baseline() -> None:
    fleet = Fleet()
    fleet.new = {"lab/0"}
    assert fleet.plan() == {"lab/0": 0.5}
    fleet.new = set()
    assert fleet.plan() == {"lab/0": 0.2}


def test_new_cameras_get_no_more_probes_while_processors_leave_probes_unchecked() -> None:
    fleet = Fleet()
    fleet.new = {"lab/0"}
    fleet.level["lab/1"] = 0.4
    assert fleet.plan(strained=True) == {"lab/1": 1.0}
    assert fleet.plan() == {"lab/0": 0.5}
    assert fleet.plan(strained=True) == {"lab/0": 0.2}


def test_the_budget_is_spent_on_the_most_suspect_cameras_first() -> None:
    fleet = Fleet(8)
    fleet.new = set(fleet.share)
    fleet.level["lab/7"] = 0.9
    # 1.6 extra frames per second for the suspect camera, 0.6 for each new one: 1.6 + 4 · 0.6 = 4.
    assert fleet.plan() == {"lab/7": 1.0, **{f"lab/{n}": 0.5 for n in range(4)}}
    assert Fleet(8, ProbePlan(extra_per_s=0)).plan() == {}


@pytest.mark.parametrize("claimed_per_s", [5.0, 10.0])
def test_a_suspect_camera_with_a_false_rate_takes_no_probes_from_other_suspect_cameras(claimed_per_s: float) -> None:
    fleet = Fleet(4, PLAN.model_copy(update={"extra_per_s": 8.0, "new_extra": 0.0}))
    fleet.rate["lab/0"] = claimed_per_s
    fleet.level |= {"lab/0": 1.0, "lab/1": 0.9, "lab/2": 0.8, "lab/3": 0.7}
    for name in ("lab/1", "lab/2", "lab/3"):
        fleet.rate[name] = 2.5  # with four fifths more probes, a quarter of the budget
    assert fleet.plan() == {"lab/1": 1.0, "lab/2": 1.0, "lab/3": 1.0}


def test_a_fast_suspect_camera_probes_more_while_the_budget_has_room() -> None:
    fleet = Fleet(2, PLAN.model_copy(update={"extra_per_s": 8.0}))
    fleet.rate["lab/0"] = 7.5
    fleet.level |= {"lab/0": 1.0, "lab/1": 0.9}
    assert fleet.plan() == {"lab/0": 1.0, "lab/1": 1.0}


def test_new_cameras_take_turns_to_bound_the_extra_frames_of_the_fleet() -> None:
    # The budget is a tenth of 16 frames per second: two cameras with 0.6 extra frames, and a third that exceeds it.
    fleet = Fleet(8, PLAN.model_copy(update={"new_extra": 0.1}))
    fleet.new = {f"lab/{n}" for n in range(2, 8)}
    assert fleet.plan() == {f"lab/{n}": 0.5 for n in (2, 3, 4)}
    # A camera with a request keeps its share until it has its baseline, also when other cameras are added.
    fleet.new.add("lab/0")
    assert fleet.plan() == {}
    fleet.level["lab/7"] = PLAN.rising_level / 2
    assert fleet.plan() == {}
    fleet.new.discard("lab/3")
    assert fleet.plan() == {"lab/3": 0.2, "lab/0": 0.5}


def test_a_request_to_a_disobeying_camera_is_repeated_after_again_s() -> None:
    fleet = Fleet()
    fleet.level["lab/2"] = 1.0
    assert fleet.plan(obey=False) == {"lab/2": 1.0}
    fleet.now_s += 1
    assert fleet.plan(obey=False) == {}
    fleet.now_s += 3
    assert fleet.plan(obey=False) == {"lab/2": 1.0}


def test_a_camera_that_returns_gets_its_request_at_once() -> None:
    fleet = Fleet(1)
    fleet.level["lab/0"] = 1.0
    assert fleet.plan(obey=False) == {"lab/0": 1.0}
    share, fleet.share = fleet.share, {}
    assert fleet.plan() == {}
    fleet.share = share
    assert fleet.plan(obey=False) == {"lab/0": 1.0}


def test_a_share_set_by_another_program_becomes_the_cameras_own() -> None:
    fleet = Fleet()
    fleet.level["lab/0"] = 1.0
    fleet.plan()
    fleet.share["lab/0"] = 0.3
    fleet.plan()
    fleet.level["lab/0"] = 0.0
    fleet.plan()
    assert fleet.share["lab/0"] == 0.3


@pytest.mark.parametrize(("level", "raised"), [(1.0, 1.0), (0.0, 0.5)])
def test_a_command_of_the_share_that_the_plan_has_requested_is_kept(level: float, raised: float) -> None:
    fleet = Fleet(1)
    fleet.state["lab/0"] = CommandState()
    fleet.level["lab/0"], fleet.new = level, {"lab/0"}
    assert fleet.plan() == {"lab/0": raised}
    fleet.command("lab/0", raised)
    fleet.level["lab/0"], fleet.new = 0.0, set()
    assert fleet.plan() == {}
    assert (fleet.share["lab/0"], fleet.probing.commanded) == (raised, {})


def test_a_commanded_share_is_restored_after_a_later_request() -> None:
    fleet = Fleet(1)
    fleet.state["lab/0"] = CommandState()
    fleet.level["lab/0"] = 1.0
    assert fleet.plan() == {"lab/0": 1.0}
    fleet.command("lab/0", 0.5)
    fleet.share["lab/0"] = fleet.state["lab/0"].asked_share = 1.0  # as after a repeated request
    fleet.level["lab/0"] = 0.0
    assert fleet.plan() == {"lab/0": 0.5}


def test_after_a_reset_the_announced_share_is_the_cameras_own() -> None:
    fleet = Fleet(1)
    fleet.command("lab/0", 0.3)
    fleet.level["lab/0"] = 1.0
    assert fleet.plan() == {"lab/0": 1.0}
    fleet.share["lab/0"], fleet.state["lab/0"] = 0.5, CommandState()
    fleet.now_s += PLAN.again_s
    assert fleet.plan() == {"lab/0": 1.0}
    fleet.level["lab/0"] = 0.0
    assert fleet.plan() == {"lab/0": 0.5}


def test_a_camera_without_its_own_probes_gets_no_request() -> None:
    fleet = Fleet()
    fleet.share["lab/0"] = 0.0
    fleet.level["lab/0"] = 1.0
    fleet.new = {"lab/0"}
    assert fleet.plan() == {}


def test_a_slow_camera_is_not_taken_for_one_set_by_another_program() -> None:
    fleet = Fleet()
    fleet.level["lab/0"] = 1.0
    assert fleet.plan() == {"lab/0": 1.0}
    fleet.level["lab/0"], fleet.new = 0.0, {"lab/0"}
    # The camera still sends all probes when half are requested, and half when all are requested again.
    assert fleet.plan(obey=False) == {"lab/0": 0.5}
    assert fleet.plan(obey=False) == {}
    fleet.share["lab/0"], fleet.level["lab/0"] = 0.5, 1.0
    assert fleet.plan(obey=False) == {"lab/0": 1.0}
    assert fleet.plan(obey=False) == {}
    fleet.level["lab/0"], fleet.new = 0.0, set()
    assert fleet.plan() == {"lab/0": 0.2}


@pytest.mark.parametrize("meta", [b"\xff\xff", b""])
def test_a_camera_with_an_unreadable_meta_gets_no_request(meta: bytes) -> None:
    assert meta_of(meta) is None


def meta_of(meta: bytes) -> Meta | None:
    camera = Camera("lab/0")
    camera.record_status(CameraRow("lab/0", meta=meta))
    return camera.meta


def test_requested_shares_are_restored_after_a_restart(make_rig: MakeRig) -> None:
    rig = make_rig()
    fleet = Fleet()
    fleet.level["lab/1"] = 1.0
    fleet.plan()
    store_commanded(rig.engine, dict(fleet.probing.commanded))
    rig.close()
    rig.open()
    with rig.engine.begin() as connection:
        restored = load_commanded(connection)
    assert restored == fleet.probing.commanded
    fleet.probing = ProbePlanner(PLAN)
    fleet.probing.commanded = restored
    fleet.level["lab/1"] = 0.0
    assert fleet.plan() == {"lab/1": 0.2}
    others = {"lab/2": CommandedShare(0.25, 0.5), "lab/3": CommandedShare(0.25, 1.0)}
    store_commanded(rig.engine, others)
    store_commanded(rig.engine, {"lab/2": CommandedShare(0.5, 1.0)})
    store_commanded(rig.engine, fleet.probing.remember([Change("lab/1", None, None)]))
    with rig.engine.begin() as connection:
        assert load_commanded(connection) == others | {"lab/2": CommandedShare(0.5, 1.0)}
