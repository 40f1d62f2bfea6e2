"""Which release a service returns to when somebody asks for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.errors import DeployError
from pipeline.protocol import Release, ReleaseState


class NothingToReturnTo(DeployError):
    """There is no earlier release that served, or the one that was named never did."""


class UnknownRelease(NothingToReturnTo):
    """There is no release of that name."""


def choose(releases: Sequence[Release], wanted: str | None = None) -> Release:
    """The release named `wanted` (its id or its number), else the last one that was live before the present one.

    Raises NothingToReturnTo.
    """
    once_live = [r for r in releases if r.state in (ReleaseState.LIVE, ReleaseState.SUPERSEDED)]
    if wanted is not None:
        for release in releases:
            if wanted in (release.id, str(release.number)):
                if release not in once_live:
                    raise NothingToReturnTo(f"{release.id} never served: choose one that did")
                return release
        named = f"{releases[0].service}-{wanted}" if releases and wanted.isdigit() else wanted
        raise UnknownRelease(f"there is no release {named}: see `shipway releases`")
    live = next((r for r in once_live if r.state is ReleaseState.LIVE), None)
    earlier = [r for r in once_live if live is None or r.number < live.number]
    # A rollback's own release repeats an older image: what it replaced is not what to return to.
    different = [r for r in earlier if live is None or r.image != live.image]
    if not different:
        raise NothingToReturnTo("no earlier release has served: there is nothing to return to")
    return max(different, key=lambda r: r.number)
