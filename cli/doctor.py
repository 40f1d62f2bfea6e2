"""`shipway doctor`: what this host offers and lacks, and what to do."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from cli.output import json_option, print_json
from engine.config import EngineConfig
from engine.kernel.doctor import inspect_kernel
from engine.network.doctor import inspect as inspect_networks

_ROOMS = ("engine", "pipeline", "deploy", "workers", "server", "cli")
_PROGRAMS = {
    "git": "install the package git",
    "nft": "install the package nftables: rollouts switch traffic with it",
}


@dataclass(frozen=True)
class Check:
    """One thing looked at. Not `ok` and `required`: Shipway cannot work on this host."""

    name: str
    ok: bool
    required: bool
    detail: str
    remedy: str


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Tell what this host's kernel and programs offer, what they lack, and what to do.

    \b
    Exit code 0: everything that is needed is there.
    Example: shipway doctor
    """
    checks = [*_kernel(), *_programs(), *_packages()]
    if as_json:
        print_json([vars(check) for check in checks])
    else:
        for check in checks:
            _print(check)
    return 0 if all(check.ok or not check.required for check in checks) else 1


def _print(check: Check) -> None:
    mark, style = ("ok", "green") if check.ok else ("no", "red") if check.required else ("--", "yellow")
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[{style}]{mark}[/]  {check.name:<22} ", end="")
    console.print(check.detail, markup=False)
    if not check.ok and check.remedy:
        console.print(f"    {'':<22} {check.remedy}", markup=False)


def _kernel() -> Iterator[Check]:
    for finding in (*inspect_kernel(), *inspect_networks(EngineConfig())):
        yield Check(finding.name, finding.ok, finding.required, finding.detail, "" if finding.ok else finding.remedy)


def _programs() -> Iterator[Check]:
    for program, remedy in _PROGRAMS.items():
        path = shutil.which(program)
        yield Check(program, path is not None, True, path or "not on PATH", remedy)


def _packages() -> Iterator[Check]:
    """Distributions called `deploy`, `pipeline` and `workers` exist on the index: are these ours?"""
    home = Path(__file__).resolve().parents[1]
    strangers = []
    for room in _ROOMS:
        origin = importlib.import_module(room).__file__
        if origin is None or Path(origin).resolve().parents[1] != home:
            strangers.append(f"{room} from {origin}")
    yield Check(
        "python packages",
        not strangers,
        True,
        ", ".join(strangers) or f"all from {home}",
        "uninstall the distribution of that name: it hides Shipway's own package",
    )
