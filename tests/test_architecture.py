"""Imports go one way, between the roles and between the rooms of each; what runs at the edge never loads torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from infra.reference.architecture import FOLDERS, dotted, imported, imports_by_room, modules

ROOT = Path(__file__).parents[1]
ROLES = ("schemas", "producers", "processors", "consumers", "lab", "infra")
# What a package may import of the others; a name with a dot allows that part alone.
ALLOWED = {
    "schemas": (),
    "producers": ("schemas",),
    "processors": ("schemas",),
    "consumers": ("schemas",),
    "lab": (
        "schemas",
        "processors.bundle",
        "processors.modes",
        "processors.networks",
        "processors.pipeline",
        "processors.preprocess",
        "processors.stages",
        "producers.sources",
        "producers.scene",
    ),
    "infra": ("schemas", "producers", "processors", "consumers", "lab"),
}
ABSENT_AT_THE_EDGE = ("torch", "aiokafka", "sqlalchemy", "onnxruntime", "scipy")
KAFKA = "schemas.transport.kafka"
CLIENTS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient"}
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


def inside(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("package", ROLES)
def test_imports_go_one_way(package: str) -> None:
    files = modules(package)
    assert files
    others = tuple(role for role in (*ROLES, "bundles", "tests", "benchmarks") if role != package)
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in sorted(names_in(file))
        if inside(name, others) and not inside(name, ALLOWED[package])
    ]
    assert not wrong


@pytest.mark.parametrize("package", FOLDERS)
def test_the_rooms_of_a_folder_import_each_other_without_a_circle(package: str) -> None:
    rooms = imports_by_room(package)
    assert rooms
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_tests_and_benchmarks_stand_apart() -> None:
    own = {*modules("tests/benchmarks"), ROOT / "tests" / "test_figures.py"}  # the tests of the benchmarks
    wrong = [file for file in modules("tests") if file not in own and uses(file, "benchmarks")]
    assert not wrong
    assert not [file for file in modules("benchmarks") if uses(file, "tests")]


@cache
def names_in(file: Path) -> frozenset[str]:
    """The modules that a module imports; parsing takes most of the time of these tests."""
    return frozenset(imported(file))


def uses(file: Path, package: str) -> bool:
    """Whether a module imports of `package`."""
    return any(inside(name, (package,)) for name in names_in(file))


def loads(names: list[str], suspects: tuple[str, ...]) -> list[str]:
    """Those of the suspects that a fresh interpreter has loaded after it imported the modules."""
    program = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(*[s for s in {suspects!r} if s in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_the_contract_loads_no_framework_and_no_client() -> None:
    names = [name for name in map(dotted, modules("schemas")) if not inside(name, (KAFKA,))]
    assert loads(names, (*ABSENT_AT_THE_EDGE, KAFKA, "av", "PIL", "paho", "yaml")) == []


def test_a_camera_loads_no_torch() -> None:
    # The bridge runs on the server.
    names = [name for name in map(dotted, modules("producers")) if not inside(name, ("producers.bridge",))]
    assert loads(names, (*ABSENT_AT_THE_EDGE, KAFKA)) == []


def test_the_bridge_loads_no_torch() -> None:
    assert loads([dotted(file) for file in modules("producers/bridge")], ("torch",)) == []


@pytest.mark.parametrize("name", ["producers.fleet.real", "infra.cameras.roster", "infra.cli.camera_run"])
def test_a_real_camera_loads_no_fault_injection(name: str) -> None:
    program = (
        f"import importlib, sys; importlib.import_module({name!r}); "
        "print(*[each for each in sys.modules if each.startswith('producers.simulation')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


@cache
def of_kafka() -> list[Path]:
    """The modules of the product that import aiokafka or our layer over it."""
    return [file for role in ROLES for file in modules(role) if uses(file, "aiokafka") or uses(file, KAFKA)]


def test_clients_of_kafka_are_constructed_in_one_place() -> None:
    wrong = {
        str(file.relative_to(ROOT))
        for file in of_kafka()
        if not inside(dotted(file), (KAFKA,))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLIENTS
    }
    assert not wrong


def test_private_members_of_aiokafka_are_touched_in_one_module() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in of_kafka()
        if dotted(file) != f"{KAFKA}.internals"
        for name in private_members(ast.parse(file.read_text()))
    ]
    assert not wrong


def private_members(tree: ast.AST) -> list[str]:
    """The private attributes of other objects that a module names, also as a string for `getattr` and its like."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            found.append(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            found += [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
    return [name for name in found if re.match("_[a-z]", name) and name not in OF_NAMED_TUPLES]


def test_a_private_member_of_another_object_is_found() -> None:
    tree = ast.parse("self._own._other\nclient._conns\ngetattr(client, '_client')\nself._own.public\nrow._asdict()")
    assert sorted(private_members(tree)) == ["_client", "_conns", "_other"]
