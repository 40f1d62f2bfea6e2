"""Whatever is asked, and whatever is missing: one line, an exit code, never a traceback."""

from __future__ import annotations

import json
import socket

import pytest

import cli.definition
from cli.main import _COMMANDS
from tests.cli.conftest import Shipway

NEEDED = (
    "up", "run", "lint", "plan", "runs", "logs", "services", "deploy", "rollback", "doctor", "engine", "worker",
    "server", "registry",
)  # fmt: skip


def test_the_commands_there_must_be() -> None:
    assert set(NEEDED) <= set(_COMMANDS)


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_explains_itself_with_an_example(shipway: Shipway, command: str) -> None:
    answer = shipway(command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: shipway {command} ")
    assert "Example:" in answer.out


def test_the_list_of_commands(shipway: Shipway) -> None:
    for arguments in ([], ["-h"], ["--help"]):
        answer = shipway(*arguments)
        assert answer.code == (0 if arguments else 2)
        assert all(f"\n  {command} " in answer.out + answer.err for command in _COMMANDS)
    assert shipway("--version").out.startswith("shipway ")


@pytest.mark.parametrize("command", _COMMANDS)
def test_options_that_are_not_there(shipway: Shipway, command: str) -> None:
    answer = shipway(command, "--surprise")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"shipway: No such option '--surprise': see `shipway {command} --help`\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["lint", "a", "b"], "Got unexpected extra argument (b)"),
        (["run-show"], "Missing argument 'RUN'"),
        (["run-show", "x"], "'x' is not a valid integer"),
        (["runs", "-n", "0"], "0 is not in the range 1<=x<=500"),
        (["logs", "x"], "'x' names no run: write RUN or RUN/STAGE"),
        (["approve", "12"], "'12' names no stage: write RUN/STAGE"),
        (["up", "--listen", "nowhere"], "'nowhere' is not an address: write HOST:PORT"),
    ],
)
def test_questions_that_make_no_sense(shipway: Shipway, arguments: list[str], error: str) -> None:
    answer = shipway(*arguments)
    assert answer.code == 2
    assert answer.err.startswith("shipway: ")
    assert error in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs"], ["run-show", "1"], ["logs", "1"], ["logs", "1/a", "-f"], ["retry", "1"], ["cancel", "1"],
        ["approve", "1/a"], ["debug", "1/a"], ["services"], ["releases", "web"], ["deploy", "web"], ["rollback", "web"],
    ],
)  # fmt: skip
def test_a_server_that_is_not_there(shipway: Shipway, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("SHIPWAY_SERVER_URL", url)
        answer = shipway(*arguments)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        f"shipway: no server answers at {url}: start one with `shipway up`, or set SHIPWAY_SERVER_URL\n"
    )


@pytest.mark.parametrize("arguments", [["runs"], ["services"]])
def test_settings_that_are_wrong(shipway: Shipway, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("SHIPWAY_SERVRE_URL", "x")
    answer = shipway(*arguments)
    assert answer.code == 2
    assert answer.err == 'shipway: unknown setting SHIPWAY_SERVRE_URL: did you mean "SHIPWAY_SERVER_URL"?\n'


def test_an_unexpected_error_is_one_line_too(shipway: Shipway, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(cli.definition, "read_definition", broken)
    answer = shipway("lint")
    assert answer.code == 1
    assert answer.err == "shipway: unexpected ZeroDivisionError: one two: `shipway --debug …` shows where\n"
    with pytest.raises(ZeroDivisionError):
        shipway("--debug", "lint")


def test_an_interruption(shipway: Shipway, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.definition, "read_definition", interrupted)
    answer = shipway("lint")
    assert (answer.code, answer.err.strip()) == (130, "shipway: interrupted")


def test_doctor_tells_what_there_is(shipway: Shipway) -> None:
    answer = shipway("doctor", "--json")
    checks = json.loads(answer.out)
    assert {"git", "nft", "python packages"} <= {check["name"] for check in checks}
    assert answer.code == (0 if all(check["ok"] or not check["required"] for check in checks) else 1)
    assert all(check["ok"] or check["remedy"] for check in checks if check["required"])
    answer = shipway("doctor")
    lines = [line for line in answer.out.splitlines() if not line.startswith("   ")]
    assert len(lines) == len(checks)


def test_doctor_tells_what_is_missing(shipway: Shipway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    answer = shipway("doctor")
    assert answer.code == 1
    assert "install the package nftables" in answer.out
