"""Lines of the console's audit log for actions by the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.state_folder import Layout


def note(layout: Layout, what: str, subject: str, detail: str, outcome: str) -> None:
    """Write a line of the audit log under the name of the user who runs this command."""
    from consumers.console.access.owner import owner_name
    from consumers.console.data.store import Store

    store = Store(layout.console_url)
    try:
        store.prepare()
        store.note(owner_name(), what, subject, detail, outcome)
    finally:
        store.close()
