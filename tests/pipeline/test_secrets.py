"""Secrets: a file each."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.plan.models import DeploySpec, RunSpec
from pipeline.secrets import MASK, MAX_SECRET, MissingSecret, SecretFolder, mask, names_of
from pipeline.services import NamedService


def test_a_secret_is_its_file_without_the_last_newline(tmp_path: Path) -> None:
    for name, content in {"A": "x\n", "B": "x\n\n", "C": "", "D": " ü\r\n"}.items():
        (tmp_path / name).write_bytes(content.encode())
    assert SecretFolder(tmp_path).read("ABCD") == {"A": "x", "B": "x\n", "C": "", "D": " ü\r"}


def test_secrets_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "BINARY").write_bytes(b"\xff")
    (tmp_path / "LARGE").write_text("x" * (MAX_SECRET + 1))
    (tmp_path / "FULL").write_text("x" * MAX_SECRET)
    (tmp_path / "FOLDER").mkdir()
    folder = SecretFolder(tmp_path)
    for name, error in {
        "NONE": "there is no secret NONE: write its value into",
        "FOLDER": "there is no secret FOLDER: write",
        "BINARY": "the secret BINARY is not UTF-8 text",
        "LARGE": "the secret LARGE is larger than 64 KiB",
    }.items():
        with pytest.raises(MissingSecret, match=error):
            folder.read([name])
    assert folder.known(["NONE", "FULL", "BINARY"]) == ["x" * MAX_SECRET]
    with pytest.raises(MissingSecret, match="no folder of secrets is set"):
        SecretFolder(None).read(["A"])


@pytest.mark.parametrize("name", ["../secret", "a/b", "/etc/passwd", "", ".", "A\n", "A B", "x" * 200])
def test_a_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in").mkdir()
    with pytest.raises(MissingSecret, match="is not a secret's name"):
        SecretFolder(tmp_path / "in").read([name])


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("a password here", ["password"], f"a {MASK} here"),
        ("nothing", ["password"], "nothing"),
        ("abc", ["abc"], "abc"),
        ("pass password", ["pass", "password"], f"{MASK} {MASK}"),
        ("pass password", ["password", "pass"], f"{MASK} {MASK}"),
        ("only two of it", ["one\nonly two\nend"], f"{MASK} of it"),
        ("twicetwice", ["twice"], MASK * 2),
        ("x", [""], "x"),
    ],
)
def test_masks(text: str, values: list[str], expected: str) -> None:
    assert mask(text, values) == expected


def test_a_deploy_reads_its_service_s_secrets_too() -> None:
    spec = DeploySpec(service=NamedService(name="web", secrets=("B", "A")), image="a")
    assert names_of(("A",), spec) == ("A", "B")
    assert names_of(("A",), RunSpec(image="a", run=("b",))) == ("A",)
