"""Provenance of rows: a row becomes stale when its code or data changes, and only then."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lab import provenance
from lab.backdoor.tasks import Task
from lab.data import LabelledPictures
from lab.experiments.codefend.detection import Detection
from lab.experiments.codefend.subjects import Subject
from lab.provenance import PACKAGES, ROOT, Repository

DETECTION = "lab.experiments.codefend.detection"
CURES = "lab.experiments.codefend.cures"
DEFENCES = "lab.experiments.super_iot.defences"


@pytest.fixture(scope="module")
def repository() -> Repository:
    """Return this repository. Its files are parsed once for all tests."""
    return Repository()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of this repository's packages."""
    root = tmp_path / "repository"
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "resnet20-*", "cnn-*", "gtsrb-*", "scene-*", "networks-*")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    return root


def test_a_digest_changes_with_needed_code_and_data_and_not_with_a_new_definition(
    repository: Repository, copy: Path
) -> None:
    before = repository.digest(DETECTION)
    for name, more, stale in (
        ("bundles/restorer/weights.safetensors", b" ", True),
        ("processors/pipeline.py", b"\n\ndef unused():\n    return 1\n", False),
        ("processors/pipeline.py", b"\nprint(end='')\n", True),
    ):
        file = copy / name
        content = file.read_bytes()
        file.write_bytes(content + more)
        assert (Repository(copy).digest(DETECTION) != before) is stale, name
        file.write_bytes(content)


def test_a_cached_result_is_keyed_by_the_code_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = LabelledPictures("few", np.zeros((4, 28, 28, 1), np.uint8), np.array([0, 1, 2, 4]))
    models = ROOT / "lab" / "backdoor" / "models"
    task = Task(tuple("0123456789"), pictures, pictures, pictures)
    subject = Subject("mnist-a-1", models / "mnist-a-1", models / "mnist-clean", task)
    detection = Detection(0.25, False, 10)
    before = detection.step(subject)
    monkeypatch.setattr("lab.experiments.codefend.detection.made_by", lambda module: f"other code of {module}")
    assert detection.step(subject) != before


def small(root: Path, **texts: str) -> Repository:
    for name, text in texts.items():
        file = root / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Repository(root)


def test_a_digest_ignores_docstrings_and_layout_and_includes_values(tmp_path: Path) -> None:
    first = small(tmp_path, lab__a='"""Text."""\nLIMIT = 3\ndef f(x):\n    """Text."""\n    return x\n').digest("lab.a")
    same = small(tmp_path, lab__a="LIMIT = 3  # why\n\ndef f(x):\n    return (x)\n").digest("lab.a")
    other = small(tmp_path, lab__a="LIMIT = 4\ndef f(x):\n    return x\n").digest("lab.a")
    assert first == same
    assert first != other


def digest(root: Path, entry: str = "lab.a:g", **texts: str) -> str:
    return small(root, **texts).digest(entry)


def test_a_digest_ignores_the_place_and_the_name_of_a_definition(tmp_path: Path) -> None:
    before = digest(tmp_path / "1", lab__a="from lab.b import f\ndef g(): return f(1)\n", lab__b="def f(x): return x\n")
    moved = digest(
        tmp_path / "2",
        lab__a="from lab.room.c import other as mine\ndef g(): return mine(1)\n",
        lab__room__c="X = 1\ndef other(x): return x\n",
    )
    assert before == moved


def test_a_digest_ignores_unused_definitions_of_the_same_file(tmp_path: Path) -> None:
    text = "def f(x): return x\ndef g(): return f(1)\n"
    assert digest(tmp_path / "1", lab__a=text) == digest(tmp_path / "2", lab__a=text + "def h(): return 3\n")


def test_a_digest_differs_for_the_same_name_from_another_module(tmp_path: Path) -> None:
    both = {"lab__b": "def f(x): return x\n", "lab__c": "def f(x): return -x\n"}
    found = {
        digest(tmp_path / name, lab__a=f"from lab.{name} import f\ndef g(): return f(1)\n", **both) for name in "bc"
    }
    assert len(found) == 2


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("import lab.b\ndef g(): return lab.b.f(1)\n", {"lab__b": "def f(x): return -x\n"}),
        ("from lab import b\ndef g(): return b.f(1)\n", {"lab__b": "def f(x): return -x\n"}),
        ("def g():\n    from lab.b import f\n    return f(1)\n", {"lab__b": "def f(x): return -x\n"}),
        ("from lab.c import f\ndef g(): return f(1)\n", {"lab__b": "def f(x): return -x\n"}),
        ("FACTORY = 'lab.b:f'\ndef g(): return FACTORY\n", {"lab__b": "def f(x): return -x\n"}),
        ("from lab.b import K\ndef g(k: K): return k.f()\n", {"lab__b": "class K:\n    def f(self): return 2\n"}),
        ("from lab.b import f\ndef g(): return f(1)\n", {"lab__b": "print()\ndef f(x): return x\n"}),
    ],
    ids=["module", "from package", "late", "re-exported", "factory", "annotation", "on import"],
)
def test_a_digest_includes_a_definition_for_every_way_to_reach_it(
    tmp_path: Path, text: str, other: dict[str, str]
) -> None:
    texts = {"lab__a": text, "lab__b": "def f(x): return x\nclass K:\n    def f(self): return 1\n"}
    texts |= {"lab__c": "from lab.b import f\n"}
    assert digest(tmp_path / "1", **texts) != digest(tmp_path / "2", **{**texts, **other})


def test_a_digest_includes_data_that_its_code_opens(tmp_path: Path) -> None:
    weights = tmp_path / "bundles" / "r" / "w.bin"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    text = 'def g(n):\n    return as_file(files("bundles") / "r" / n)\n'
    before = digest(tmp_path, lab__a=text)
    weights.write_bytes(b"other")
    assert digest(tmp_path, lab__a=text) != before


def test_bookkeeping_changes_no_digest(tmp_path: Path) -> None:
    text = "from lab.cache import Cache\ndef g(cache: Cache): return cache.get()\n"
    found = {
        digest(tmp_path / str(n), lab__a=text, lab__experiments__cache=f"class Cache:\n    x = {n}\n") for n in (1, 2)
    }
    assert len(found) == 1


def test_bookkeeping_that_moves_changes_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"before": "from lab.keep import kept\n\n\ndef g():\n    return kept(2)\n"}
    texts["after"] = texts["before"].replace("lab.keep", "lab.low.keep")
    monkeypatch.setattr(provenance, "_BOOKKEEPING", {"lab.keep": "lab.keep", "lab.low.keep": "lab.keep"})
    before, after = (digest(tmp_path / name, lab__a=text) for name, text in texts.items())
    assert before == after
    monkeypatch.setattr(provenance, "_BOOKKEEPING", {"lab.keep": "lab.keep", "lab.low.keep": "lab.low.keep"})
    assert digest(tmp_path / "other", lab__a=texts["after"]) != before


def test_a_missing_module_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"got lab\.nothing"):
        Repository(tmp_path).digest("lab.nothing")


# A program that measures a detection on frames with dropped pixels, and prints the files that it opens.
OPENED = """
import sys
opened = set()
sys.addaudithook(lambda event, given: opened.add(str(given[0])) if event == "open" else None)
import numpy as np, tempfile, torch
from pathlib import Path
from lab import provenance
from lab.backdoor.tasks import Task
from lab.data import LabelledPictures
from lab.cache import Cache
from lab.experiments.codefend.detection import Detection, measure
from lab.experiments.codefend.subjects import Subject
from lab.strip import limits
limits.DRAWS = 50
random = np.random.default_rng(0)
def some(count):
    return LabelledPictures("few", random.integers(0, 256, (count, 28, 28, 1)).astype(np.uint8), np.arange(count) % 10)
models = provenance.ROOT / "lab" / "backdoor" / "models"
task = Task(tuple("0123456789"), some(20), some(220), some(20))
subject = Subject("mnist-a-1", models / "mnist-a-1" / "bundle", models / "mnist-clean" / "bundle", task)
measure(subject, Detection(0.25, False, 10), Cache(Path(tempfile.mkdtemp())))
print("\\n".join(sorted(opened)))
"""


def test_the_provenance_of_a_detection_includes_every_file_of_the_repository_that_it_opens(
    repository: Repository,
) -> None:
    run = subprocess.run([sys.executable, "-c", OPENED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    opened = {Path(line).resolve() for line in run.stdout.splitlines()}
    packages = [ROOT / name for name in PACKAGES]
    ours = {file for file in opened if any(file.is_relative_to(place) for place in packages) and file.is_file()}
    known = {place.file for place in repository.reached(DETECTION)} | set(repository.data(DETECTION))
    inputs_of_the_row = ROOT / "lab" / "backdoor" / "models" / "mnist-a-1"
    missing = {file for file in ours - known if file.suffix != ".pyc" and not file.is_relative_to(inputs_of_the_row)}
    assert {file for file in missing if file.suffix != ".py"} == set()
    assert ROOT / "bundles" / "restorer" / "weights.safetensors" in ours


def test_the_provenance_of_rows_includes_the_pipeline(repository: Repository) -> None:
    for module in (DETECTION, CURES, DEFENCES):
        files = {str(place.file.relative_to(ROOT)) for place in repository.reached(module)}
        assert {"processors/pipeline.py", "processors/stages/learned.py"} <= files
