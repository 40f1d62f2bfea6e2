from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from engine.kernel import overlay

pytestmark = pytest.mark.kernel
LAYERS = 127


@pytest.fixture(params=["one by one", "in a page"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 6.7 knows only the second; every one knows that. A later one is not asked whether it does."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    old = (int(major), int(minor)) < (6, 7)
    if request.param == "one by one" and old and not overlay.takes_one_by_one():
        pytest.skip("this kernel has no lowerdir+")
    monkeypatch.setattr(overlay, "_one_by_one", request.param == "one by one")


@pytest.mark.usefixtures("_way")
def test_as_many_layers_as_an_image_can_have_are_shown_and_written_over(tmp_path: Path) -> None:
    layers = [tmp_path / f"{number:064d}" for number in range(LAYERS)]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / "same").write_text(str(number))
        (layer / f"own{number}").touch()
    upper, work = tmp_path / "a,b:c", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    before = Path("/proc/self/mountinfo").read_text()
    tree = overlay.overlay([str(layer) for layer in layers], str(upper), str(work), options=["volatile"])
    try:
        root = Path(f"/proc/self/fd/{tree}")
        assert (root / "same").read_text() == "0"
        assert len(os.listdir(root)) == LAYERS + 1
        (root / "new").touch()
        assert [path.name for path in upper.iterdir()] == ["new"]
    finally:
        os.close(tree)
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.usefixtures("_way")
def test_a_layer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        overlay.overlay([str(tmp_path), str(tmp_path / "gone")])
