"""What the parts are told: a file, and the environment over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.settings import Settings, default_worker_name, load_settings


def written(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "config.yaml").write_text(text)
    return {"SHIPWAY_CONFIG": str(tmp_path / "config.yaml")}


def test_all_by_default(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, ""), data=tmp_path)
    assert settings.database == f"sqlite:///{tmp_path / 'shipway.db'}"
    assert settings.secrets_folder == tmp_path / "secrets"
    assert (settings.listen_host, settings.listen_port) == ("127.0.0.1", 7700)
    assert settings.read_worker_token() is None
    (tmp_path / "worker-token").write_text("t\n")
    assert settings.read_worker_token() == "t"


def test_the_environment_is_over_the_file_and_arguments_over_both(tmp_path: Path) -> None:
    environ = written(tmp_path, "listen_port: 1\nregistry_url: file:1\nlease_seconds: 20s\n")
    environ |= {"SHIPWAY_LISTEN_PORT": "2", "SHIPWAY_REGISTRY_URL": "env:1", "PATH": "/bin", "SHIPWAYS": "no"}
    settings = load_settings(environ, listen_port=3, registry_url=None)
    assert (settings.listen_port, settings.registry_url, settings.lease_seconds) == (3, "env:1", 20.0)


def test_a_file_by_argument_is_before_the_environment_s(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("listen_port: 9")
    assert load_settings(written(tmp_path, "listen_port: 1"), tmp_path / "mine.yaml").listen_port == 9


def test_repositories_and_labels(tmp_path: Path) -> None:
    environ = written(tmp_path, "repositories: {web: {url: /srv/web.git, secret: s3same, token: t0ken}}\n")
    environ["SHIPWAY_WORKER_LABELS"] = "role=web, zone=a,"
    settings = load_settings(environ)
    web = settings.repositories["web"]
    assert (web.url, web.pipelines_file, web.secret.get_secret_value()) == ("/srv/web.git", "pipelines.yaml", "s3same")
    assert "s3same" not in repr(settings)
    assert "t0ken" not in repr(settings)
    assert settings.worker_labels == {"role": "web", "zone": "a"}
    environ["SHIPWAY_REPOSITORIES"] = "{api: {url: /srv/api.git, secret: s}}"
    assert list(load_settings(environ).repositories) == ["api"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("listen_prot: 1", "unknown key 'listen_prot': did you mean \"listen_port\"?"),
        ("listen_port: many", "listen_port: Input should be a valid integer"),
        ("listen_port: 70000", "listen_port: Input should be less than or equal to 65535"),
        ("lease_seconds: 0.5", "lease_seconds must be 1s to 1h"),
        ("sweep_seconds: 2m", "sweep_seconds must be 50ms to 60s"),
        ("lease_seconds: soon", '"soon" is not a duration'),
        ("worker_name: Web_1", "lower case letters, digits, dots and dashes"),
        ("worker_labels: role", "labels are written role=web,zone=a"),
        ("worker_labels: {role: no}", "worker_labels.role: Input should be a valid string"),
        ("repositories: {web: {url: /x}}", "repositories.web.secret: Field required"),
        ("repositories: {web: {url: /x, secret: s, branch: main}}", "repositories.web.branch: Extra inputs"),
        ("- a", "settings are written as key: value"),
        ("a: b: c", "mapping values are not allowed"),
        ("a: 2024-13-01", "month must be in 1..12"),
        ("[" * 2000, "config.yaml: "),
        ("!!python/object/apply:os.system [x]", "could not determine a constructor"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_one_line(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text))
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"SHIPWAY_LISTEN_PROT": "1"}, 'unknown setting SHIPWAY_LISTEN_PROT: did you mean "SHIPWAY_LISTEN_PORT"?'),
        ({"SHIPWAY_LISTEN_PORT": "x"}, "listen_port: "),
        ({"SHIPWAY_REPOSITORIES": "{a: b: c"}, "SHIPWAY_REPOSITORIES: "),
        ({"SHIPWAY_REPOSITORIES": "web"}, "repositories: "),
        ({"SHIPWAY_CONFIG": "/nonexistent/x.yaml"}, "/nonexistent/x.yaml: there is no such file: make it"),
        ({"SHIPWAY_CONFIG": "/"}, "/: Is a directory"),
    ],
)
def test_an_environment_that_is_wrong_is_told_in_one_line(environ: dict[str, str], error: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "") | environ)
    assert str(caught.value).startswith(error)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="this is not UTF-8 text"):
        load_settings({}, tmp_path / "config.yaml")


def test_every_problem_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "listen_port: x\nworker_concurrency: 0\n"))
    assert "listen_port: " in str(caught.value)
    assert "worker_concurrency: " in str(caught.value)


def test_a_secret_is_not_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "repositories: {web: {url: [1], secret: s3same}}\nworker_token: [s3same]"))
    assert "s3same" not in str(caught.value)


@pytest.mark.parametrize("host", ["web1", "Web_1.Example.COM", "-x-", "ü", "", "a" * 100])
def test_a_host_s_name_makes_a_worker_s(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert Settings(worker_name=default_worker_name()).worker_name
