"""Which image a stage means when it does not say."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.definition.models import RunDef, StageDef, TestDef
from pipeline.plan.graph import ancestors
from pipeline.plan.models import Kind


class NoProduct(ValueError):
    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def default_image(name: str, stages: Mapping[str, StageDef]) -> str:
    """The `${stages.NAME.OUTPUT}` that stands for an image not given. Raises NoProduct.

    A deploy means what the nearest push before it pushed. A push means the snapshot of the nearest test
    before it that takes one (and takes one, not one a matrix cell), else the image of the nearest build.
    Tests mean the image of the nearest build.
    """
    kind = stages[name].kind
    distances = ancestors(name, {key: stage.needs for key, stage in stages.items()})
    if kind is Kind.DEPLOY:
        wanted = {key: d for key, d in distances.items() if stages[key].kind is Kind.PUSH}
        missing = ("nothing was pushed before this deploy", "add a push stage to its needs, or set image:")
        return _nearest(wanted, stages, "image", missing)
    builds = {key: d for key, d in distances.items() if stages[key].kind is Kind.BUILD}
    if kind is Kind.PUSH:
        snapshots = {key: d for key, d in distances.items() if _takes_snapshot(stages[key])}
        if snapshots and min(snapshots.values()) < min(builds.values(), default=1 << 30):
            return _nearest(snapshots, stages, "snapshot", ("", ""))
    missing = ("no image was built before this stage", "add a build stage to its needs, or set image:")
    return _nearest(builds, stages, "image", missing)


def _takes_snapshot(stage: StageDef) -> bool:
    return isinstance(stage.body, (TestDef, RunDef)) and stage.body.snapshot and not stage.matrix


def _nearest(wanted: Mapping[str, int], stages: Mapping[str, StageDef], output: str, missing: tuple[str, str]) -> str:
    if not wanted:
        raise NoProduct(*missing)
    least = min(wanted.values())
    nearest = [key for key, distance in wanted.items() if distance == least]
    if len(nearest) > 1:
        choices = " or ".join("${stages." + key + f".{output}}}" for key in nearest)
        raise NoProduct("several images come before this stage", f"say which with image: {choices}")
    if stages[nearest[0]].matrix:
        raise NoProduct(f'"{nearest[0]}" makes an image for each cell of its matrix', "name one with image:")
    return "${stages." + nearest[0] + f".{output}}}"
