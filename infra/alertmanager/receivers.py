"""Alertmanager's configuration: the shipped routes and silences with the operator's own receivers."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from producers.settings_file import RepeatedKeyError, SettingsLoader
from schemas.errors import ConfigError

SHIPPED: Final = Path(__file__).parent / "alertmanager.yml"
_OWN: Final = ("global", "receivers", "routes", "templates", "time_intervals")
"""The keys that a file of receivers may hold, all under Alertmanager's own names; `receivers` is required."""
_CHECK_S: Final = 20.0
_NAMES: Final = ("name", "receiver")
_SECRET_LETTERS: Final = 6


class _Plain(str):
    """A number, a truth value or a time as the file writes it: for Alertmanager, 17:00 and 0123 may be texts."""

    tag = ""

    @classmethod
    def of_node(cls, _: yaml.SafeLoader, node: yaml.ScalarNode) -> _Plain:
        """Return the text of a node, with its kind in YAML."""
        text = cls(node.value)
        text.tag = node.tag
        return text


class _Loader(SettingsLoader):
    pass


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


for _kind in ("bool", "float", "int", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Plain.of_node)
_Dumper.add_representer(_Plain, lambda dumper, text: dumper.represent_scalar(text.tag, text))


def configuration(receivers: Path | None) -> dict[str, Any]:
    """Return the shipped configuration, with the file's receivers; the first one is the default.

    The file's `routes` choose among its receivers, in its order, under the shipped times of grouping. Its relative
    paths start from its own folder. Raises ConfigError when it cannot be read, holds other keys, or fails
    Alertmanager's own check.
    """
    shipped: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    if receivers is None:
        return shipped
    own = _read(receivers)
    route = shipped["route"]
    chosen = own.pop("routes", [])
    route["receiver"] = own["receivers"][0]["name"]
    if chosen:
        for each in route["routes"]:
            each["routes"] = chosen
        route["routes"].append({"matchers": ['alertname=~".+"'], "routes": chosen})
    # The file's own anchors would come out as aliases.
    found = {**shipped, **_absolute(own, receivers.resolve().parent)}
    _check(found, receivers)
    return found


def _read(file: Path) -> dict[str, Any]:
    what = f"--receivers {file}"
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(
            f"{what}: expected a file of Alertmanager's receivers, got {error.strerror}. Correct the path."
        ) from None
    except RepeatedKeyError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        raise ConfigError(
            f"{what}: expected each key of a mapping once, got one again{line}. Merge or remove one of them."
        ) from None
    except (yaml.YAMLError, ValueError):
        # The parser's message may quote a line, and a line may hold a password.
        raise ConfigError(f"{what}: expected YAML, got something else. Correct the file.") from None
    if not isinstance(document, dict) or "receivers" not in document:
        raise ConfigError(
            f"{what}: expected `receivers`, a list as in Alertmanager's configuration, got none. Correct the file."
        )
    strange = sorted(str(key) for key in document if key not in _OWN)
    if strange:
        raise ConfigError(f"{what}: expected {', '.join(_OWN)}, got {strange[0]}. Correct the file.")
    for key in ("receivers", "routes"):
        found = document.get(key, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise ConfigError(f"{what}: expected a list of mappings under {key}, got another form. Correct the file.")
    if not document["receivers"] or not all(isinstance(each.get("name"), str) for each in document["receivers"]):
        raise ConfigError(
            f"{what}: expected at least one receiver, each with a name, got none or one without. Correct the file."
        )
    return document


def _absolute(found: Any, folder: Path) -> Any:
    """Return the same with the paths of files, such as those that hold passwords, relative to `folder`."""
    if isinstance(found, list):
        return [_absolute(each, folder) for each in found]
    if not isinstance(found, dict):
        return found
    return {
        key: str(folder / each)
        if isinstance(each, str) and str(key).endswith("_file")
        else [str(folder / path) for path in each]
        if key == "templates" and isinstance(each, list)
        else _absolute(each, folder)
        for key, each in found.items()
    }


def _check(found: dict[str, Any], receivers: Path) -> None:
    """Run Alertmanager's own check, if it is installed and ends in time."""
    program = shutil.which("amtool")
    if program is None:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:  # readable by its owner only
        file.write(as_yaml(found))
        file.flush()
        command = [program, "check-config", file.name]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_CHECK_S)
        except subprocess.TimeoutExpired:  # as without the program: Alertmanager itself rejects a wrong file
            return
    if done.returncode:
        first, *more = (done.stdout + done.stderr).partition("FAILED:")[2].strip().splitlines() or ["it says no more"]
        if more and first.endswith(":"):  # a list of errors: the first one, without its line in our file and its value
            first = re.sub(r"`[^`]*`", "…", re.sub(r"^\s*line \d+: ", "", more[0]))
        why = first
        for value in _values(found):
            why = why.replace(value, "…")
        raise ConfigError(
            f"--receivers {receivers}: expected a file that Alertmanager accepts, got {why}. Correct the file."
        )


def _values(found: Any) -> Iterator[str]:
    """Return the values of a receiver without its names: some of them are secret."""
    if isinstance(found, list):
        for each in found:
            yield from _values(each)
    elif isinstance(found, dict):
        for key, each in found.items():
            if isinstance(each, str) and key not in _NAMES and len(each) >= _SECRET_LETTERS:
                yield each
            elif not isinstance(each, str):
                yield from _values(each)


def as_yaml(found: dict[str, Any]) -> str:
    """Return a configuration in Alertmanager's format."""
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
