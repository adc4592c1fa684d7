"""What a result was made from: the code that its module reaches by imports, and the data which that code opens itself.

Nobody keeps a list. From one module of this repository on, all imports of this repository's packages are followed,
wherever in a file they stand; a data file counts when the code that was reached opens it by
`as_file(files("package") / "folder" / name)`: all files under the part of the path that is written out. What a caller
hands over, bundles and pictures, is not seen here; it belongs into the digest beside this one.

Code is compared by what it does: comments, docstrings and the layout do not count, nor does the place of a file, for
an import counts as the content of the imported module and the name taken from it. So a file may move without a result
becoming stale.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("schemas", "producers", "processors", "consumers", "lab", "infra", "bundles")


@dataclass(frozen=True)
class Repository:
    """A checkout or an installed copy: the folder that holds `PACKAGES`. Each file is read once."""

    root: Path = ROOT
    _known: dict[Path, Source] = field(default_factory=dict, compare=False, repr=False)

    def digest(self, module: str) -> str:
        """The state of everything that `module`, `package.module`, reaches. Raises ModuleNotFoundError."""
        state = hashlib.blake2b(digest_size=12)
        # Names of files say nothing here, so their order must come from what is in them.
        for each in sorted({source.state for source in self.sources(module)}):
            state.update(each.encode())
        for file in self.data(module):
            state.update(f"{file.name}\0".encode() + hashlib.blake2b(file.read_bytes()).digest())
        return state.hexdigest()

    def sources(self, module: str) -> list[Source]:
        """The modules that `module` reaches, itself first; packages' `__init__` run as well."""
        first = self.files(module)
        if not first:
            raise ModuleNotFoundError(f"expected a module of {', '.join(PACKAGES)}, got {module}")
        found: dict[Path, Source] = {}
        waiting = first[::-1]
        while waiting:
            file = waiting.pop()
            if file not in found:
                found[file] = source = self.source(file)
                waiting += [each for _, _, files in source.imports for each in files]
        return list(found.values())

    def source(self, file: Path) -> Source:
        """One of its Python files."""
        return self._known.setdefault(file, Source(self, file))

    def data(self, module: str) -> list[Path]:
        """The data files that the code which `module` reaches opens itself, by name."""
        places = {self.root.joinpath(*parts) for source in self.sources(module) for parts in source.opened()}
        files = {file for place in places for file in (place.rglob("*") if place.is_dir() else [place])}
        wanted = [file for file in files if file.is_file() and file.suffix not in {".py", ".pyc", ".md"}]
        return sorted(wanted, key=lambda file: (file.name, file))

    def files(self, name: str) -> list[Path]:
        """The module called `name` and the packages around it; of an attribute, the module that has it."""
        parts = name.split(".")
        if parts[0] not in PACKAGES:
            return []
        found = []
        for count in range(1, len(parts) + 1):
            place = self.root.joinpath(*parts[:count])
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            if file.is_file():
                found.append(file)
        return found[::-1]


@cache
def made_by(module: str) -> str:
    """The state of everything that a module of this process reaches, as `__name__` calls it."""
    return Repository().digest(module)


@dataclass(frozen=True, eq=False)
class Source:
    """One Python file."""

    repository: Repository
    file: Path

    @cached_property
    def tree(self) -> ast.Module:
        """Parsed, without docstrings."""
        tree = ast.parse(self.file.read_bytes(), str(self.file))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [each for each in node.body if not _is_text(each)] or [ast.Pass()]
        return tree

    @cached_property
    def imports(self) -> list[tuple[str, str, list[Path]]]:
        """What is imported, under which name it goes here, and the files of this repository that this runs."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names = [(each.name, each.asname or each.name) for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(f"{node.module}.{each.name}", each.asname or each.name) for each in node.names]
            else:
                continue
            found += [(name, here, self.repository.files(name)) for name, here in names]
        return found

    @cached_property
    def own(self) -> str:
        """A digest of what the file does, without its imports."""
        shown = ast.dump(_WithoutImports().visit(ast.parse(ast.unparse(self.tree))))
        return hashlib.blake2b(shown.encode(), digest_size=12).hexdigest()

    @cached_property
    def state(self) -> str:
        """The same with what is imported: of other packages by name, of this repository by content."""
        lines = []
        for name, here, files in self.imports:
            what = self.repository.source(files[0]).own if files else name
            lines.append(f"{what} {name.rpartition('.')[2]} {here.rpartition('.')[2]}")
        return "\n".join((self.own, *sorted(lines)))

    def opened(self) -> Iterator[tuple[str, ...]]:
        """Of each `as_file(files("package") / "folder" / …)`, the parts of the path that are written out."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and _called(node) == "as_file" and node.args:
                yield _written_out(node.args[0])


class _WithoutImports(ast.NodeTransformer):
    """Leaves imports out, and what then has no body keeps one."""

    def visit_Import(self, node: ast.Import) -> ast.Pass:
        return ast.Pass()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.Pass:
        return ast.Pass()


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _called(node: ast.expr) -> str | None:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def _written_out(path: ast.expr) -> tuple[str, ...]:
    """The leading constant parts of `files("package") / "folder" / name`."""
    parts: list[ast.expr] = []
    while isinstance(path, ast.BinOp) and isinstance(path.op, ast.Div):
        parts.append(path.right)
        path = path.left
    if _called(path) != "files":
        return ("bundles",)
    assert isinstance(path, ast.Call)
    found = []
    for each in [*path.args[:1], *reversed(parts)]:
        if not isinstance(each, ast.Constant):
            break
        found.append(str(each.value))
    return tuple(found) or ("bundles",)
