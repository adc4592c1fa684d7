"""The files of users and tokens, by option or in the state folder."""

from __future__ import annotations

from pathlib import Path


def login_file(file: Path | None, state: Path | None, name: str) -> Path:
    """Return the given file, or the file `name` of the state folder. Raises ConfigError without either."""
    from infra.state_folder import Layout
    from schemas.errors import ConfigError

    if file is None and state is None:
        raise ConfigError(f"--file is missing: expected the file of {name}. Give --file FILE or --state DIR.")
    layout = Layout((state or Path()).resolve())
    return file or (layout.users if name == "users" else layout.tokens)
