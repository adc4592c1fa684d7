"""The options of `console` for jobs, and the processes of jobs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from consumers.console.settings import ConsoleSettings, JobSettings
from infra.cli import console_jobs
from infra.cli.console_jobs import job_environment, job_settings, launcher
from infra.settings.load import SettingsSources, load
from schemas.errors import ConfigError
from schemas.runtime.priority import AUTOGROUP
from tests.waiting import PATIENCE_S

SESSION = f"os.path.exists('{AUTOGROUP}') and open('{AUTOGROUP}').read().split()[-1]"


def jobs_of(jobs: dict[str, Any], **options: Any) -> JobSettings | None:
    """Return the job settings of a console with these settings."""
    return job_settings(ConsoleSettings.model_validate({"jobs": jobs, **options}))


def test_a_job_is_niced_and_gets_its_own_secret_and_none_of_its_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"import json, os; print(json.dumps([dict(os.environ), os.nice(0), {SESSION}]))"
    monkeypatch.setattr(console_jobs, "COMMAND", (sys.executable, "-IS", "-c", program))
    for name in ("POINTILLIST_ROLE_SECRET_FILE", "POINTILLIST_KAFKA_TLS", "POINTILLIST_ALLOW_CODE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    for name in ("POINTILLIST_DATA", "POINTILLIST_FACTORIES"):
        monkeypatch.delenv(name, raising=False)
    child = launcher()(["lab", "repair"], tmp_path / "log", {"POINTILLIST_ROLE_SECRET": "own"})
    child.start()
    assert child.wait(2 * PATIENCE_S) == 0
    environment, niceness, session = json.loads((tmp_path / "log").read_text())
    variables = {name: value for name, value in environment.items() if name.startswith("POINTILLIST_")}
    assert variables == {"POINTILLIST_ALLOW_CODE": "1", "POINTILLIST_ROLE_SECRET": "own"}
    assert environment["OMP_NUM_THREADS"] == "1"
    assert niceness >= 15
    # A job leads its own session, because the kernel compares the niceness of sessions.
    assert session == str(niceness) or not AUTOGROUP.exists()


def test_only_a_job_with_a_store_gets_the_credentials_of_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("PGPASSWORD", "DB_URL", "HALL_LOGIN", "NVIDIA_API_KEY", "POINTILLIST_FLEET_SECRET")
    stores = {"AWS_SECRET_ACCESS_KEY": "1", "GOOGLE_APPLICATION_CREDENTIALS": "1", "AZURE_STORAGE_ACCOUNT_KEY": "1"}
    kept = {"CUDA_VISIBLE_DEVICES": "1", "LC_TIME": "1", "POINTILLIST_DATA": "1"}
    for name in (*secrets, *stores, *kept):
        monkeypatch.setenv(name, "1")
    for arguments in ([], ["lab", "repair", "--out", "--storey"]):
        found = job_environment(arguments)
        assert kept.items() <= found.items()
        assert found.keys().isdisjoint({*secrets, *stores})
    for arguments in (["model", "publish", "--store", "s3://models"], ["model", "rollback", "--store=s3://models"]):
        found = job_environment(arguments)
        assert (kept | stores).items() <= found.items()
        assert found.keys().isdisjoint(secrets)


def test_jobs_publish_with_the_given_key_and_certificate(tmp_path: Path) -> None:
    key = tmp_path / "ada.key"
    key.write_text("")
    found = jobs_of(
        {"folder": tmp_path / "jobs", "signer": key, "models": "s3://models", "admin_tls": tmp_path / "tls"},
        kafka="kafka:9092",
        trust=tmp_path / "trusted",
    )
    assert found is not None
    options = (
        "--signer", str(key), "--trust", str(tmp_path / "trusted"), "--kafka-tls", str(tmp_path / "tls"), "--kafka",
        "kafka:9092", "--store", "s3://models",
    )  # fmt: skip
    assert (found.publish, found.rollback) == (options, options)
    alone = jobs_of({"folder": tmp_path / "jobs"})
    assert alone is not None
    assert (alone.publish, alone.rollback) == (None, None)
    assert job_settings(ConsoleSettings()) is None


def test_invalid_options_for_jobs_are_one_error_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"jobs\.folder is missing"):
        load(ConsoleSettings, SettingsSources("console", options={"jobs.signer": str(tmp_path)}))
    with pytest.raises(ConfigError, match=r"jobs\.bundle: expected a folder with model\.toml"):
        jobs_of({"folder": tmp_path, "bundle": tmp_path})
    with pytest.raises(ConfigError, match=r"jobs\.signer: expected the file of a private key"):
        jobs_of({"folder": tmp_path, "signer": tmp_path / "none"}, state=tmp_path)
    with pytest.raises(ConfigError, match=r"jobs\.models is missing"):
        load(ConsoleSettings, SettingsSources("console", options={"jobs.folder": str(tmp_path), "jobs.signer": "key"}))
