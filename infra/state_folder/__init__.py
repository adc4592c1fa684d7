"""The state folder: its paths, the lock of its identities, and the environment of a process that has none."""

from infra.state_folder.layout import (
    KAFKA_NODES,
    Layout,
    check_named,
    issue_role_secrets,
    read_text,
    regular_file,
    role_file,
    write_report,
    write_secret,
    writing,
)

__all__ = [
    "KAFKA_NODES",
    "Layout",
    "check_named",
    "issue_role_secrets",
    "read_text",
    "regular_file",
    "role_file",
    "write_report",
    "write_secret",
    "writing",
]
