"""The operations assets by themselves; tests/e2e/test_watching.py has them on a running system."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import deploy
from tests import needs

ROOT = Path(__file__).resolve().parents[2]
OPS = Path(deploy.__file__).parent / "ops"
UNITS = sorted((OPS / "systemd").glob("*.service")) + sorted((OPS / "systemd").glob("*.timer"))


def tool(*argv: str | Path, cwd: Path = ROOT) -> str:
    """What the tool says. Its complaints, whatever its exit code, are a failure."""
    needs.program(str(argv[0]))
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_configuration_is_prometheus_own():
    said = tool("promtool", "check", "config", OPS / "prometheus.yml")
    assert "SUCCESS: 1 rule files found" in said
    assert "FAILED" not in said


def test_alerts_fire_when_they_should_and_only_then():
    tool("promtool", "test", "rules", "rules_test.yml", cwd=ROOT / "tests" / "deploy")


def test_every_alert_is_tested():
    named = set(re.findall(r"- alert: (\w+)", (OPS / "rules.yml").read_text()))
    tested = set(re.findall(r"Shipway\w+", (ROOT / "tests" / "deploy" / "rules_test.yml").read_text()))
    assert named == tested


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads((OPS / "grafana-shipway.json").read_text())


def test_every_panel_asks_the_chosen_data_source(dashboard: Any):
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    asking = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert len(asking) > 25
    for asked in (*asking, *dashboard["annotations"]["list"], variables["pipeline"], variables["service"]):
        assert asked["datasource"] == source
    assert all(target["datasource"] == source for panel in asking for target in panel["targets"])


def test_panels_have_a_place_of_their_own(dashboard: Any):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_units_are_good_for_systemd(tmp_path: Path):
    """With the command of this environment, for the one they name is not on this machine."""
    command = Path(sys.executable).parent / "shipway"
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/shipway/bin/shipway", str(command)))
    said = tool("systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir()))
    assert said == ""


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_is_there(unit: Path):
    (line,) = re.findall(r"^ExecStart=/opt/shipway/bin/shipway (.+)$", unit.read_text(), re.MULTILINE)
    # An option that does not exist is refused before --help is looked at.
    tool(sys.executable, "-m", "cli", *line.split(), "--help")


def test_a_part_that_faces_the_network_has_few_powers():
    for name in ("server", "registry"):
        text = (OPS / "systemd" / f"shipway-{name}.service").read_text()
        assert f"\nUser=shipway-{name}\n" in text, "not in the group that may use the engine"
        for line in ("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"):
            assert f"\n{line}\n" in text


def test_the_engine_may_be_stopped_without_its_containers():
    text = (OPS / "systemd" / "shipway-engine.service").read_text()
    assert "--live-restore" in text
    for line in ("Type=notify", "KillMode=process", "RuntimeDirectoryPreserve=yes", "Delegate=yes"):
        assert f"\n{line}\n" in text


def test_users_are_made_as_the_units_name_them(tmp_path: Path):
    copied = tmp_path / "shipway.conf"
    shutil.copy(OPS / "systemd" / "shipway.sysusers", copied)
    (tmp_path / "root" / "etc").mkdir(parents=True)
    tool("systemd-sysusers", f"--root={tmp_path / 'root'}", f"--replace=/usr/lib/sysusers.d/{copied.name}", copied)
    made = (tmp_path / "root" / "etc" / "passwd").read_text()
    users = {name for unit in UNITS for name in re.findall(r"^User=(.+)$", unit.read_text(), re.MULTILINE)}
    assert users == {"shipway-server", "shipway-registry"}
    assert all(f"{user}:" in made for user in users)
    assert "shipway:" in (tmp_path / "root" / "etc" / "group").read_text()


def test_they_are_in_the_wheel(tmp_path: Path):
    tool(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    here = {f"deploy/ops/{path.relative_to(OPS)}" for path in OPS.rglob("*") if path.is_file()}
    assert here <= names
    assert len(here) >= 10
