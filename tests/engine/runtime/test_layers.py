"""A root's layers, shown to a container: by folders of mounts attached nowhere, and for kernels that can't do that."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from engine.kernel.aside import aside
from engine.runtime.zygote import birth, layers

pytestmark = pytest.mark.kernel
_MAPPINGS = [{"containerID": 0, "hostID": 1_000_000, "size": 65536}]


@pytest.fixture(params=[True, False], ids=["attached nowhere", "attached for a moment"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_unattached", request.param)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("mapped", [True, False])
def test_layers_are_shown_with_the_ids_of_the_namespace(tmp_path: Path, *, mapped: bool) -> None:
    lower = [tmp_path / "layers" / name for name in ("top", "bottom")]
    own = [tmp_path / "box" / name for name in ("upper", "work")]
    for folder in (*lower, *own, tmp_path / "lower", tmp_path / "upper"):
        folder.mkdir(parents=True)
    (lower[0] / "same").write_text("top")
    (lower[1] / "same").write_text("bottom")
    (lower[1] / "other").touch()
    request = {"lower": list(map(str, lower)), "upper": str(own[0]), "work": str(own[1]), "volatile": True}
    before = Path("/proc/self/mountinfo").read_text()

    users = birth.user_namespace({"uidMappings": _MAPPINGS, "gidMappings": _MAPPINGS}) if mapped else None
    with contextlib.ExitStack() as stack:
        if users is not None:
            stack.callback(os.close, users)
        tree = aside(lambda: layers.Layers(request, stack).shown(users, str(tmp_path)))
        stack.callback(os.close, tree)
        root = Path(f"/proc/self/fd/{tree}")
        assert sorted(os.listdir(root)) == ["other", "same"]
        assert (root / "same").read_text() == "top"
        assert (root / "other").stat().st_uid == (1_000_000 if mapped else 0)
        (root / "new").touch()
        assert [path.name for path in own[0].iterdir()] == ["new"]

    assert Path("/proc/self/mountinfo").read_text() == before
