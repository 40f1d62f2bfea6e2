"""What the pages about rollouts, hosts and operations tell people to write is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import deploy
from cli.main import shipway
from pipeline.definition.load import load
from pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
OPS = Path(deploy.__file__).parent / "ops"
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("rollouts", "hosts", "operations", "registry")}


@pytest.mark.parametrize("page", PAGES)
def test_pipeline_files_are_right(page: str):
    for block in re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL):
        for document in (block,) if "pipelines:" in block else ():
            assert load(document, f"docs/{page}.md").services
        assert yaml.safe_load(block)


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_settings_are_there(page: str):
    commands = {name for line in re.findall(r"\bshipway ([a-z][a-z-]+)", PAGES[page]) for name in line.split()}
    assert commands <= {*shipway.list_commands(None)}, "a command that does not exist"  # type: ignore[arg-type]
    settings = set(re.findall(r"\bSHIPWAY_([A-Z_]+)\b", PAGES[page]))
    assert settings <= {field.upper() for field in Settings.model_fields}


def test_every_alert_is_explained():
    named = set(re.findall(r"- alert: (\w+)", (OPS / "rules.yml").read_text()))
    assert set(re.findall(r"Shipway[A-Z]\w+", PAGES["operations"])) == named


def test_every_unit_is_explained():
    for unit in (OPS / "systemd").iterdir():
        if unit.name not in ("shipway.sysusers", "shipway-prune.service"):
            assert f"`{unit.name.removesuffix('.service')}`" in PAGES["operations"]


def test_links_lead_somewhere():
    for page in PAGES.values():
        for name, _, anchor in re.findall(r"\]\((\w+\.md)(#([\w-]+))?\)", page):
            target = ROOT / "docs" / name
            assert target.exists(), name
            headings = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in
                        re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)}  # fmt: skip
            assert not anchor or anchor in headings, anchor
