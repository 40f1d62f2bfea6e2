from __future__ import annotations

from pathlib import Path

import pytest

from engine.registry.server.errors import RegistryError
from engine.registry.server.storage.uploads import Upload


def test_what_comes_after_its_request_is_refused(tmp_path: Path) -> None:
    upload = Upload(tmp_path, "app")
    upload.open()
    upload.append(b"in time")
    upload.rest()
    with pytest.raises(RegistryError, match="the upload was closed"):
        upload.append(b"too late")
    upload.open()
    upload.append(b", and again")
    upload.close()
    assert upload.data.read_bytes() == b"in time, and again"
