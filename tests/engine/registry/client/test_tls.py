"""Certificates: our own CA, Docker's folder of certificates, and what happens when nobody vouches for them."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from engine.errors import Unavailable
from engine.images.reference import Reference
from engine.registry.client import RegistryClient, pull, push
from engine.registry.server import make_app, start
from tests import needs
from tests.engine.registry.client.conftest import PATIENCE, files_of

pytestmark = needs.programs("openssl")

FILES = {"a": b"1"}


def make_certificate(folder: Path) -> Path:
    """`ca.pem` with its key beside it: for 127.0.0.1, signed by itself."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "ca.pem"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def secure(tmp_path, certificate):
    """The host of a registry that speaks TLS only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    runner, port = await start(make_app(tmp_path / "registry"), "127.0.0.1", 0, tls=context)
    yield f"127.0.0.1:{port}"
    await runner.cleanup()


async def test_a_ca_of_our_own(secure, certificate, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{secure}/app:1")
    async with RegistryClient(ca=certificate, patience=PATIENCE) as client:
        await push(client, here, make_image(here, FILES), reference)
        assert files_of(there, await pull(client, reference, there)) == FILES


async def test_certificates_in_dockers_folder(secure, certificate, tmp_path, store, make_image):
    folder = tmp_path / "certs.d" / secure
    folder.mkdir(parents=True)
    shutil.copy(certificate, folder / "ca.crt")
    async with RegistryClient(certificates=tmp_path / "certs.d", patience=PATIENCE) as client:
        await push(client, store, make_image(store, FILES), Reference.parse(f"{secure}/app:1"))


async def test_loopback_needs_no_certificate_that_is_right(secure, store, make_image):
    async with RegistryClient(patience=PATIENCE) as client:
        await push(client, store, make_image(store, FILES), Reference.parse(f"{secure}/app:1"))


async def test_a_certificate_that_the_ca_did_not_sign(secure, other_ca, store):
    async with RegistryClient(ca=other_ca, patience=PATIENCE) as client:
        with pytest.raises(Unavailable, match=r"certificate of .* is not trusted.*give its CA, or name") as caught:
            await pull(client, Reference.parse(f"{secure}/app:1"), store)
    assert "\n" not in str(caught.value)
