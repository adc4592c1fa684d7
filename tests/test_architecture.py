"""Rules for imports: they go one way between roles and between a role's folders, and cameras never load torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from infra.reference.architecture import FOLDERS, dotted, imported, imports_by_room, modules

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("architecture")  # the tests share a cache of parsed imports
ROLES = ("schemas", "producers", "processors", "consumers", "lab", "infra")
# The packages that each package may import. A name with a dot allows this subpackage alone.
ALLOWED = {
    "schemas": (),
    "producers": ("schemas",),
    "processors": ("schemas", "bundles"),
    "consumers": ("schemas",),
    "lab": (
        "schemas",
        "processors.bundle",
        "processors.decoding",
        "processors.device.precision",
        "processors.networks",
        "processors.pipeline",
        "processors.stages",
        "producers.sources",
        "producers.scene",
        "producers.video",
    ),
    "infra": ("schemas", "producers", "processors", "consumers", "lab", "bundles"),
}
ABSENT_AT_THE_EDGE = ("torch", "aiokafka", "sqlalchemy", "onnxruntime", "scipy")
KAFKA = "schemas.transport.kafka"
MQTT = "schemas.transport.mqtt"
CLIENTS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient"}
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_mapping", "_replace"}
"""Names that begin with an underscore and that libraries document as public."""
SUSPECT = re.compile(r"(?<!\bself)\._[a-z]|attr\(")
"""Text of every module that names a private member of another object. Other modules need no syntax tree."""
HOMES = {
    "aiokafka": "schemas.transport.kafka.internals",
    "fsspec": "processors.models.store",
    "paho": "schemas.transport.mqtt.internals",
    "prometheus_client": "schemas.metrics",
    "torch": "processors.networks.onednn",
}
"""The one module of the product that may touch a library's private members."""


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
        for name in sorted(imported(file))
        if inside(name, others) and not inside(name, ALLOWED[package])
    ]
    assert not wrong


@pytest.mark.parametrize("package", FOLDERS)
def test_the_folders_of_a_role_import_each_other_without_a_cycle(package: str) -> None:
    rooms = imports_by_room(package)
    assert rooms
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_the_pages_and_the_api_of_the_console_import_nothing_of_each_other() -> None:
    rooms = imports_by_room("consumers.console")
    pages, api = (f"consumers.console.{room}" for room in ("pages", "api"))
    assert api not in rooms[pages]
    assert pages not in rooms[api]


def test_tests_and_benchmarks_share_the_harness_alone() -> None:
    own = {*modules("tests/benchmarks"), ROOT / "tests" / "test_figures.py"}  # the tests of the benchmarks
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in modules("tests")
        if file not in own
        for name in sorted(imported(file))
        if inside(name, ("benchmarks",)) and not inside(name, ("benchmarks.harness",))
    ]
    assert not wrong
    assert not [file for file in modules("benchmarks") if uses(file, "tests")]


def parsed(file: Path) -> ast.Module:
    """Return the syntax tree of a file. Tests keep no tree: millions of nodes would slow down garbage collections."""
    return ast.parse(file.read_text())


def uses(file: Path, package: str) -> bool:
    """Return whether a module imports from `package`."""
    return any(inside(name, (package,)) for name in imported(file))


def loads(names: list[str], suspects: tuple[str, ...]) -> list[str]:
    """Return the suspects that a new interpreter has loaded after it imported the modules."""
    program = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(*[s for s in {suspects!r} if s in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_the_contract_loads_no_framework_and_no_client() -> None:
    names = [name for name in map(dotted, modules("schemas")) if not inside(name, (KAFKA, MQTT))]
    assert loads(names, (*ABSENT_AT_THE_EDGE, KAFKA, "av", "PIL", "paho", "yaml")) == []


def test_a_camera_loads_no_torch() -> None:
    # The bridge runs on the server.
    names = [name for name in map(dotted, modules("producers")) if not inside(name, ("producers.bridge",))]
    assert loads(names, (*ABSENT_AT_THE_EDGE, KAFKA)) == []


def test_the_bridge_loads_no_torch() -> None:
    assert loads([dotted(file) for file in modules("producers/bridge")], ("torch",)) == []


def test_a_real_camera_loads_no_fault_injection() -> None:
    names = ["producers.fleet.real", "infra.cameras.roster", "infra.cli.camera_run"]
    assert loads(names, ("producers.simulation",)) == []


@cache
def kafka_modules() -> list[Path]:
    """Return the modules of the product that import aiokafka or our layer over it."""
    return [file for role in ROLES for file in modules(role) if uses(file, "aiokafka") or uses(file, KAFKA)]


def test_clients_of_kafka_are_constructed_in_one_place() -> None:
    wrong = {
        str(file.relative_to(ROOT))
        for file in kafka_modules()
        if not inside(dotted(file), (KAFKA,))
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLIENTS
    }
    assert not wrong


def test_paho_is_imported_in_one_place() -> None:
    wrong = [
        str(file.relative_to(ROOT))
        for role in ROLES
        for file in modules(role)
        if uses(file, "paho") and not inside(dotted(file), (MQTT,))
    ]
    assert not wrong


@pytest.mark.parametrize("role", ROLES)
def test_private_members_of_a_library_are_touched_in_one_module(role: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in modules(role)
        if dotted(file) not in HOMES.values() and SUSPECT.search(file.read_text())
        for name in foreign_members(parsed(file))
    ]
    assert not wrong


def test_clients_over_paho_use_none_of_its_private_members() -> None:
    private = {name for name in dir(Client(CallbackAPIVersion.VERSION2)) if re.match("_[a-z]", name)}
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for role in ROLES
        for file in modules(role)
        if uses(file, HOMES["paho"]) and dotted(file) != f"{MQTT}.connection"
        for name in sorted(private & own_members(parsed(file)))
    ]
    assert not wrong


def foreign_members(tree: ast.AST) -> list[str]:
    """Return the private members that a module names and does not define itself."""
    own = own_members(tree)
    return [name for name in private_members(tree) if name not in own]


def own_members(tree: ast.AST) -> set[str]:
    """Return the names of methods, fields and attributes of `self` that a module assigns or defines."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
    return found


def private_members(tree: ast.AST) -> list[str]:
    """Return the private attributes of other objects that a module names, also as a string for `getattr`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            found.append(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            found += [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
    return [name for name in found if re.match("_[a-z]", name) and name not in PUBLIC]


def test_a_private_member_of_another_object_is_found() -> None:
    tree = ast.parse("self._own._other\nclient._conns\ngetattr(client, '_client')\nself._own.public\nrow._asdict()")
    assert sorted(private_members(tree)) == ["_client", "_conns", "_other"]


def test_a_private_member_of_the_same_module_is_not_foreign() -> None:
    tree = ast.parse("class Growth:\n    def __init__(self):\n        self._values = 1\nother._values\nclient._conns")
    assert foreign_members(tree) == ["_conns"]
