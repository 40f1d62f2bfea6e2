"""What the server, the workers and the command are told: a YAML file, and `SHIPWAY_*` over it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.errors import SettingsError
from pipeline.values import Duration, Labels, Size, did_you_mean

DEFAULT_FILE = Path("/etc/shipway/config.yaml")
_PREFIX = "SHIPWAY_"
_NOT_SETTINGS = frozenset({"SHIPWAY_CONFIG"})


class Repository(BaseModel):
    """A repository whose pushes this server believes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    """What git clones: https, ssh, file or a path. Also how a hook may name the repository."""
    secret: SecretStr
    """The key of the hooks' HMAC."""
    pipelines_file: str = "pipelines.yaml"
    token: SecretStr | None = None
    """Password for https clones, sent as user `x-access-token`."""


class Settings(BaseModel):
    """One model for all parts of the orchestrator. Each reads what concerns it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(default_factory=lambda: default_data())
    """Where the server keeps its database, and a worker its workspaces."""
    database_url: str = ""
    """SQLAlchemy's URL. Empty: SQLite in the data folder."""
    broker_url: str = ""
    """Celery's broker. Empty: the bundled one, on a socket in the data folder."""
    server_url: str = "http://127.0.0.1:7700"
    listen_host: str = "127.0.0.1"
    listen_port: int = Field(default=7700, ge=0, le=65535)
    registry_url: str = "127.0.0.1:7750"
    worker_token: SecretStr | None = None
    """What a worker shows to the server. None: the server makes one in the data folder, mode 0600."""
    api_token: SecretStr | None = None
    """What a client shows to change something. None: only the loopback address is trusted."""
    worker_name: str = Field(default_factory=lambda: default_worker_name())
    worker_labels: Labels = Field(default_factory=dict)
    worker_concurrency: int = Field(default=2, ge=1, le=256)
    engine: str = "unix:///run/shipway/engine.sock"
    """The Docker Engine API that a worker uses."""
    repositories: dict[str, Repository] = Field(default_factory=dict)
    lease_seconds: Duration = 10.0
    sweep_seconds: Duration = 1.0
    worker_patience: Duration = 120.0
    """How long a stage waits for a silent worker that alone has its image, before it fails."""
    log_size: Size = Field(default=64 << 20, ge=1 << 20)
    """Bytes that are kept of one attempt's log: its head and its tail."""
    artifacts_keep: Duration = 14 * 86400.0
    """For how long a worker keeps what its stages collected; the oldest also go when there are too many."""
    artifacts_most: int = Field(default=500, ge=1)
    """Of how many attempts a worker keeps artifacts."""
    artifacts_size: Size = 20 << 30
    """Bytes of a worker's artifacts together."""
    secrets_dir: Path | None = None
    """A file a secret, named as the pipeline names it. None: `secrets` in the data folder."""

    @field_validator("worker_labels", mode="before")
    @classmethod
    def _labels_of_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.strip() for part in value.split(",") if part.strip()]
        if any("=" not in pair for pair in pairs):
            raise ValueError("labels are written role=web,zone=a")
        return dict(pair.split("=", 1) for pair in pairs)

    @field_validator("worker_name")
    @classmethod
    def _worker_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", value):
            raise ValueError("a worker's name has lower case letters, digits, dots and dashes")
        return value

    @model_validator(mode="after")
    def _lease(self) -> Settings:
        if not 1.0 <= self.lease_seconds <= 3600:
            raise ValueError("lease_seconds must be 1s to 1h")
        if not 0.05 <= self.sweep_seconds <= 60:
            raise ValueError("sweep_seconds must be 50ms to 60s")
        return self

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data / 'shipway.db'}"

    @property
    def secrets_folder(self) -> Path:
        return self.secrets_dir or self.data / "secrets"

    def read_worker_token(self) -> str | None:
        """The token of the settings, else the one that the server on this machine made, else None."""
        if self.worker_token is not None:
            return self.worker_token.get_secret_value()
        try:
            return (self.data / "worker-token").read_text().strip() or None
        except OSError:
            return None


def default_data() -> Path:
    return Path("/var/lib/shipway") if os.geteuid() == 0 else Path.home() / ".local/share/shipway"


def default_worker_name() -> str:
    name = re.sub(r"[^a-z0-9.-]+", "-", socket.gethostname().lower()).strip("-.")[:63]
    return name or "localhost"


def load_settings(environ: Mapping[str, str] | None = None, file: Path | None = None, **overrides: Any) -> Settings:
    """Settings from `overrides`, over the environment, over the file, over the defaults.

    The file is `file`, else SHIPWAY_CONFIG, else /etc/shipway/config.yaml if it exists. A key of
    `repositories` as a whole comes from one of them only. Raises SettingsError with one line a problem.
    """
    environ = os.environ if environ is None else environ
    named = file or (Path(environ["SHIPWAY_CONFIG"]) if environ.get("SHIPWAY_CONFIG") else None)
    values = _from_file(named or DEFAULT_FILE, required=named is not None)
    values |= _from_environment(environ)
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(problem) for problem in error.errors())) from None


def _from_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        if required:
            raise SettingsError(f"{path}: there is no such file: make it, or unset SHIPWAY_CONFIG") from None
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: this is not UTF-8 text") from None
    values = _yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: settings are written as key: value")
    for key in values:
        if key not in Settings.model_fields:
            raise SettingsError(f"{path}: unknown key {key!r}: {did_you_mean(str(key), Settings.model_fields)}")
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    known = {_PREFIX + name.upper(): name for name in Settings.model_fields}
    for variable, text in environ.items():
        if not variable.startswith(_PREFIX) or variable in _NOT_SETTINGS:
            continue
        if variable not in known:
            raise SettingsError(f"unknown setting {variable}: {did_you_mean(variable, known)}")
        name = known[variable]
        values[name] = _yaml(text, variable) if name == "repositories" else text
    return values


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError) as error:  # such as the date 2024-13-01, or a thousand brackets
        raise SettingsError(f"{where}: {str(error)[:200]}") from None


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "settings"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}"
