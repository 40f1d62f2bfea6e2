"""The refusals of the distribution-spec: a code, a status and one line (spec, "Error Codes")."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web


class RegistryError(Exception):
    """Becomes `{"errors": [{"code", "message", "detail"}]}` with its status."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        error: dict[str, object] = {"code": self.code, "message": str(self)}
        if self.detail is not None:
            error["detail"] = self.detail
        return web.Response(
            status=self.status,
            body=json.dumps({"errors": [error]}).encode(),
            content_type="application/json",
            headers=self.headers,
        )


def name_invalid(name: str) -> RegistryError:
    return RegistryError(400, "NAME_INVALID", f"invalid repository name {name[:300]!r}")


def name_unknown(name: str) -> RegistryError:
    return RegistryError(404, "NAME_UNKNOWN", f"no such repository: {name}")


def tag_invalid(tag: str) -> RegistryError:
    return RegistryError(400, "TAG_INVALID", f"invalid tag {tag[:200]!r}")


def digest_invalid(why: str) -> RegistryError:
    return RegistryError(400, "DIGEST_INVALID", f"invalid digest: {why}")


def blob_unknown(digest: str) -> RegistryError:
    return RegistryError(404, "BLOB_UNKNOWN", "no such blob in this repository", detail={"digest": digest})


def manifest_unknown(reference: str) -> RegistryError:
    return RegistryError(404, "MANIFEST_UNKNOWN", f"no such manifest: {reference}")


def manifest_invalid(why: str) -> RegistryError:
    return RegistryError(400, "MANIFEST_INVALID", why)


def manifest_blob_unknown(digest: str) -> RegistryError:
    return RegistryError(
        404,
        "MANIFEST_BLOB_UNKNOWN",
        "the manifest refers to something this repository lacks",
        detail={"digest": digest},
    )


def manifest_too_big(limit: int) -> RegistryError:
    return RegistryError(413, "SIZE_INVALID", f"manifests have at most {limit} bytes here")


def blob_too_big(limit: int) -> RegistryError:
    return RegistryError(413, "SIZE_INVALID", f"blobs have at most {limit} bytes here")


def upload_unknown() -> RegistryError:
    return RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "no such upload: begin it again")


def upload_invalid(why: str) -> RegistryError:
    return RegistryError(400, "BLOB_UPLOAD_INVALID", why)


def range_invalid(why: str, headers: Mapping[str, str]) -> RegistryError:
    return RegistryError(416, "BLOB_UPLOAD_INVALID", why, headers=headers)


def unsupported(what: str) -> RegistryError:
    return RegistryError(405, "UNSUPPORTED", what)


def denied(why: str) -> RegistryError:
    return RegistryError(403, "DENIED", why)
