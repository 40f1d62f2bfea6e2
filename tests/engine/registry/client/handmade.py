"""Images laid into a registry byte by byte, right or wrong."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

from tests.engine.registry.conftest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Wire, digest_of
from tests.engine.tars import tar_of


def config_of(*diff_ids: str, architecture: str = "amd64", **more: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs, **more}).encode()


@dataclass
class Handmade:
    """Lays images into one repository."""

    wire: Wire
    repository: str

    async def descriptor(self, data: bytes, media_type: str, **changed: Any) -> dict[str, Any]:
        """Stores `data`; what is `changed` makes the descriptor lie."""
        digest = await self.wire.put_blob(self.repository, data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **changed}

    async def image(
        self,
        files: dict[str, bytes],
        tag: str | None = None,
        *,
        architecture: str = "amd64",
        diff_id: str | None = None,
        media_type: str = OCI_LAYER + "+gzip",
        **changed: Any,
    ) -> dict[str, Any]:
        """An image of one layer; returns the descriptor of its manifest."""
        tar = tar_of(files)
        config = config_of(diff_id or digest_of(tar), architecture=architecture)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": await self.descriptor(config, OCI_CONFIG),
            "layers": [await self.descriptor(gzip.compress(tar, 9, mtime=0), media_type)],
            **changed,
        }
        return await self.manifest(manifest, tag)

    async def index(self, entries: list[dict[str, Any]], tag: str | None = None) -> dict[str, Any]:
        return await self.manifest({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, tag)

    async def manifest(self, manifest: dict[str, Any], tag: str | None = None) -> dict[str, Any]:
        digest = await self.wire.put_manifest(self.repository, tag, manifest)
        return {"mediaType": manifest["mediaType"], "digest": digest, "size": len(json.dumps(manifest).encode())}
