"""Digests of the code and data that a result was made from.

The entry is a function, class, constant or module of this repository. From it, each name that a definition uses is
followed to its definition, through imports and re-exports, wherever they stand. The digest covers the definitions that
are reached, and the statements that their modules run on import. It also covers the data files that the reached code
opens by `as_file(files("package") / "folder" / name)`. No list is needed. Bundles and pictures that a caller passes
are not covered: they belong to the inputs of a row.

An annotation is a use as well: through it, the methods of what a function is given are reached. Functions that a caller
passes are not, so the entry is the function that puts them together.

Only content counts. Comments, docstrings and layout are ignored. A reference counts as the content of its target: a
definition that moves to another file or gets another name makes no result stale. An edit of a file changes only the
results that reach the edited definition.
"""

from __future__ import annotations

import ast
import hashlib
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("schemas", "producers", "processors", "consumers", "lab", "infra", "bundles")
_ROUNDS: Final = 4
"""Times that the digest of each definition is mixed with those of the definitions that it uses."""
_FACTORY: Final = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+:\w+")
_BOOKKEEPING: Final = {
    "lab.provenance": "lab.experiments.provenance",
    "lab.cache": "lab.experiments.cache",
    "lab.experiments.harness": "lab.experiments.harness",
    "lab.results": "lab.results",
}
"""Modules and packages that keep and show results but do not change them: a reference to them is not followed.

A reference counts by the module's first place, the value of each, so a later move makes no row stale.
"""


class Place(NamedTuple):
    """A definition: the module's file, and the name in it. An empty name is for the statements run on import."""

    file: Path
    name: str


@dataclass(frozen=True)
class Repository:
    """A checkout or an installed copy: the folder that holds `PACKAGES`. Each file is read once."""

    root: Path = ROOT
    _modules: dict[Path, Module] = field(default_factory=dict, compare=False, repr=False)
    _digests: dict[tuple[str, ...], str] = field(default_factory=dict, compare=False, repr=False)

    def digest(self, *entries: str) -> str:
        """Return the state of all that the entries, `package.module` or `package.module:name`, reach.

        Raises ModuleNotFoundError and AttributeError for an entry that is missing.
        """
        if entries not in self._digests:
            self._digests[entries] = self._digest(entries)
        return self._digests[entries]

    def _digest(self, entries: tuple[str, ...]) -> str:
        reached = self.reached(*entries)
        own = {place: _hashed(each.text) for place, each in reached.items()}
        mixed = own
        for _ in range(_ROUNDS):
            mixed = {
                place: _hashed(own[place], *(mixed[target] for target in each.targets))
                for place, each in reached.items()
            }
        # Places are left out on purpose: the set of contents is the state.
        data = (_hashed(file.name, hashlib.blake2b(file.read_bytes()).hexdigest()) for file in self.data(*entries))
        return _hashed(*sorted(set(mixed.values())), *data)

    def reached(self, *entries: str) -> dict[Place, Definition]:
        """Every definition that the entries reach, themselves included."""
        found: dict[Place, Definition] = {}
        waiting = [place for entry in entries for place in self.places(entry)]
        while waiting:
            place = waiting.pop()
            if place not in found:
                found[place] = definition = self.module(place.file).definition(place.name)
                waiting += [*definition.targets, Place(place.file, "")]
        return found

    def data(self, *entries: str) -> list[Path]:
        """Return the data files that the reached code opens itself, by name."""
        opened = {parts for each in self.reached(*entries).values() for parts in each.opened}
        places = {self.root.joinpath(*parts) for parts in opened}
        files = {file for place in places for file in (place.rglob("*") if place.is_dir() else [place])}
        wanted = [file for file in files if file.is_file() and file.suffix not in {".py", ".pyc", ".md"}]
        return sorted(wanted, key=lambda file: (file.name, file))

    def places(self, entry: str) -> list[Place]:
        """Return the definitions of an entry: one, or all of a module."""
        name, _, member = entry.partition(":")
        file = self.file(name)
        if file is None:
            raise ModuleNotFoundError(f"expected a module of {', '.join(PACKAGES)}, got {name}")
        if not member:
            return self.module(file).everything()
        found = self.member(file, member)
        if found is None:
            raise AttributeError(f"{entry}: expected a definition in {name}, found none")
        return found

    def module(self, file: Path) -> Module:
        """One of its Python files."""
        return self._modules.setdefault(file, Module(self, file))

    def file(self, name: str) -> Path | None:
        """Return the file of the module called `name`; a package's is its `__init__.py`."""
        parts = name.split(".")
        if parts[0] not in PACKAGES:
            return None
        place = self.root.joinpath(*parts)
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        return file if file.is_file() or place.is_dir() else None

    def member(self, file: Path, name: str) -> list[Place] | None:
        """Return the definition of `name` in a module, or in the one from which it is imported; None if it has none."""
        module = self.module(file)
        if name in module.statements:
            return [Place(file, name)]
        if name in module.imports:
            return self.imported(module.imports[name])
        beneath = self.file(".".join((*file.parent.relative_to(self.root).parts, name)))
        return self.module(beneath).everything() if file.name == "__init__.py" and beneath is not None else None

    def imported(self, name: str) -> list[Place] | None:
        """Return the definitions that `package.module.name` stands for; None if it is not of this repository."""
        if any(f"{name}.".startswith(f"{each}.") for each in _BOOKKEEPING):
            return None
        file = self.file(name)
        if file is not None:
            return self.module(file).everything()
        around, _, member = name.rpartition(".")
        file = self.file(around) if around else None
        if file is None:
            return None
        found = self.member(file, member)
        # A name that no statement binds is made at run time, as protobuf does: all of the module counts.
        return self.module(file).everything() if found is None else found


class Definition(NamedTuple):
    """The content of a definition, with its references numbered; their targets; the data files that it opens."""

    text: str
    targets: list[Place]
    opened: list[tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Module:
    """One Python file."""

    repository: Repository
    file: Path
    _definitions: dict[str, Definition] = field(default_factory=dict, repr=False)

    @cached_property
    def tree(self) -> list[ast.stmt]:
        """Its statements, without docstrings."""
        return ast.parse(self.file.read_bytes(), str(self.file)).body if self.file.is_file() else []

    @cached_property
    def imports(self) -> dict[str, str]:
        """Full names of the imported objects, by the names that they are bound to."""
        found: dict[str, str] = {}
        for node in self.tree:
            for each in [node, *(node.body if isinstance(node, ast.If) else [])]:
                found |= _bound_by_imports(each)
        return found

    @cached_property
    def statements(self) -> dict[str, list[ast.stmt]]:
        """The statements that bind each name, and under the empty name those that bind none."""
        found: dict[str, list[ast.stmt]] = {"": []}
        for node in self.tree:
            if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node) or _is_never_run(node):
                continue
            for name in _bound(node) or [""]:
                found.setdefault(name, []).append(node)
        return found

    def everything(self) -> list[Place]:
        """All definitions."""
        return [Place(self.file, name) for name in self.statements]

    def definition(self, name: str) -> Definition:
        """Return the definition of a name."""
        if name not in self._definitions:
            self._definitions[name] = self._define(self.statements.get(name, []))
        return self._definitions[name]

    def _define(self, statements: list[ast.stmt]) -> Definition:
        reader = _Reader(self)
        # The reader changes what it visits. Pickling copies a tree several times faster than `copy.deepcopy`.
        texts = [ast.dump(reader.visit(pickle.loads(pickle.dumps(node)))) for node in statements]
        opened = [parts for node in statements for call in ast.walk(node) for parts in _opened(call)]
        return Definition("\n".join(texts), reader.targets, opened)


class _Reader(ast.NodeTransformer):
    """Replaces each reference to a definition of this repository by a number, and collects the definitions."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.imports = module.imports
        self.targets: list[Place] = []

    def visit_Name(self, node: ast.Name) -> ast.expr:
        found = self._resolved(node.id)
        if found is None:
            return ast.Name(_counted(self.imports.get(node.id, node.id)), node.ctx)
        return self._reference(found)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        # `module.name` counts as that definition alone, not as the whole module.
        chain, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            chain.append(base.attr)
            base = base.value
        if isinstance(base, ast.Name) and base.id in self.imports:
            name = self.imports[base.id]
            repository = self.module.repository
            for number, part in enumerate(reversed(chain), start=1):
                file = repository.file(name)
                if file is None:
                    break
                name = f"{name}.{part}"
                if repository.file(name) is None:
                    found = repository.imported(name)
                    if found is None:
                        break
                    rest: ast.expr = self._reference(found)
                    for attribute in list(reversed(chain))[number:]:
                        rest = ast.Attribute(rest, attribute, ast.Load())
                    return rest
        self.generic_visit(node)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        # A factory is named in text: `package.module:name`.
        if isinstance(node.value, str) and _FACTORY.fullmatch(node.value):
            found = self.module.repository.imported(node.value.replace(":", "."))
            if found is not None:
                return self._reference(found)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        # The digest of code is the key of a checkpoint: which entries it takes changes no result.
        if isinstance(node.func, ast.Name) and self.imports.get(node.func.id) == "lab.provenance.made_by":
            return ast.Name("made_by", ast.Load())
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = _without_text(node.body)
        node.name = self._own(node.name)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        # Dataclasses and pydantic read the annotations of fields; `Final` has no effect.
        if _is_final(node.annotation):
            node.annotation = ast.Constant("")
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        self.imports = self.imports | _bound_by_imports(node)
        return ast.Pass()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        self.imports = self.imports | _bound_by_imports(node)
        return ast.Pass()

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.body = _without_text(node.body)
        node.name = self._own(node.name)
        return self.generic_visit(node)

    def _own(self, name: str) -> str:
        return "" if name in self.module.statements else name

    def _resolved(self, name: str) -> list[Place] | None:
        if name in self.module.statements:
            return [Place(self.module.file, name)]
        return self.module.repository.imported(self.imports[name]) if name in self.imports else None

    def _reference(self, places: list[Place]) -> ast.expr:
        numbers = []
        for place in places:
            if place not in self.targets:
                self.targets.append(place)
            numbers.append(self.targets.index(place))
        return ast.Name(f"@{numbers}", ast.Load())


_HERE: Final = Repository()


def made_by(*entries: str) -> str:
    """Return the state of everything that the entries reach in this process's repository. See `Repository.digest`."""
    return _HERE.digest(*entries)


def _hashed(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def _counted(name: str) -> str:
    """Return the full name of an imported object, or for one of `_BOOKKEEPING` the name that it counts as."""
    for module, place in _BOOKKEEPING.items():
        if f"{name}.".startswith(f"{module}."):
            return place + name[len(module) :]
    return name


def _bound_by_imports(node: ast.stmt) -> dict[str, str]:
    if isinstance(node, ast.Import):
        return {each.asname or each.name.partition(".")[0]: each.name if each.asname else each.name.partition(".")[0]
                for each in node.names}  # fmt: skip
    if isinstance(node, ast.ImportFrom):
        return {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return {}


def _bound(node: ast.stmt) -> list[str]:
    """Names that a statement of a module binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Expr | ast.AugAssign):
        return []
    stores = [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
    inner = [each.name for each in ast.walk(node) if isinstance(each, ast.FunctionDef | ast.ClassDef)]
    return list(dict.fromkeys((*stores, *inner)))


def _is_never_run(node: ast.stmt) -> bool:
    """Return whether a branch is for type checkers or for the command line only."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def _is_final(node: ast.expr) -> bool:
    return ast.unparse(node).partition("[")[0] in ("Final", "ClassVar")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _without_text(body: list[ast.stmt]) -> list[ast.stmt]:
    return [each for each in body if not _is_text(each)] or [ast.Pass()]


def _called(node: ast.AST) -> str | None:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def _opened(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield the parts of the path that are written out in `as_file(files("package") / "folder" / name)`."""
    if not isinstance(node, ast.Call) or _called(node) != "as_file" or not node.args:
        return
    path, parts = node.args[0], list[ast.expr]()
    while isinstance(path, ast.BinOp) and isinstance(path.op, ast.Div):
        parts.append(path.right)
        path = path.left
    found = list[str]()
    if isinstance(path, ast.Call) and _called(path) == "files":
        for each in [*path.args[:1], *reversed(parts)]:
            if not isinstance(each, ast.Constant):
                break
            found.append(str(each.value))
    yield tuple(found) or ("bundles",)
