"""What a registry may ask of us, and what it may do to us."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.registryclient import HousekeepingError, Refused, RegistryClient, Unsupported
from tests.deploy import registries

# The user ada with the password tide.
HTPASSWD = "ada:$2b$04$LS3bKkFtrH19aYTTIphP1etmmvjVEehwmDIlraQPQRbCAEjcp/poS\n"
DIGEST = f"sha256:{'0' * 64}"

Reply = tuple[int, dict[str, str], object]


@contextmanager
def answering(reply: Callable[[str, str, Mapping[str, str]], Reply]) -> Iterator[str]:
    """A server that answers (method, path, headers) as `reply` says; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = reply(self.command, self.path, self.headers)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def client(url: str, **options: object) -> Iterator[RegistryClient]:
    made = RegistryClient(url, **options)
    try:
        yield made
    finally:
        made.close()


def test_importing_it_silences_nobody():
    code = (
        "import warnings; warnings.simplefilter('error'); before = list(warnings.filters)\n"
        "import deploy.registryclient\n"
        "assert [f for f in warnings.filters if f not in before and f[0] == 'ignore' and f[2] is Warning] == []\n"
        "try:\n    warnings.warn('heard')\nexcept UserWarning: print('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=registries.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "heard\n"


def test_a_user_and_a_password(tmp_path: Path):
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "harbour", "path": str(tmp_path / "htpasswd")}}
    with registries.debian(tmp_path, auth=auth) as url:
        with client(url, username="ada", password="tide") as ada:
            assert ada.catalogue() == []
            assert not ada.delete("web", DIGEST)
        with client(url, username="ada", password="ebb") as wrong, pytest.raises(HousekeepingError) as caught:
            wrong.catalogue()
        with client(url) as nobody, pytest.raises(HousekeepingError):
            nobody.delete("web", DIGEST)
    assert str(caught.value) == f"{url}/v2/_catalog: the registry wants another user or password"


def test_certificates_are_checked_unless_told(tmp_path: Path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ("-subj", "/CN=harbour", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([*command, *files, *subject], check=True, capture_output=True)
    with registries.debian(tmp_path, http={"tls": {"certificate": str(certificate), "key": str(key)}}) as url:
        with client(url) as strict, pytest.raises(HousekeepingError, match="certificate verify failed"):
            strict.catalogue()
        with client(url, verify=str(certificate)) as trusting:
            assert trusting.catalogue() == []
        with client(url, verify=False) as careless, warnings.catch_warnings():
            warnings.simplefilter("error")
            assert careless.catalogue() == []
            assert not careless.delete("web", DIGEST)


def test_tokens_and_their_end():
    issued: list[str] = []

    def reply(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        if path.startswith("/v2/token"):
            if headers.get("Authorization") != "Basic YWRhOnRpZGU=":
                return 401, {}, {"details": "incorrect username or password"}
            issued.append(path.partition("scope=")[2])
            return 200, {}, {"token": f"t{len(issued)}"}
        # Each token is good for one request.
        good = headers.get("Authorization") == f"Bearer t{len(issued)}"
        if not good or len(seen) >= len(issued):
            return 401, {"WWW-Authenticate": "Bearer"}, {}
        seen.append(path)
        return 200, {}, {"tags": ["v1"]}

    seen: list[str] = []
    with answering(reply) as address:
        token_url = f"http://{address}"
        with client(address, username="ada", password="tide", token_url=token_url) as ada:
            assert ada.tags("web") == ["v1"]
            assert ada.tags("web") == ["v1"]
        assert issued == ["repository:web:*"] * 2
        wrong = client(address, username="ada", password="ebb", token_url=token_url)
        with wrong as asking, pytest.raises(HousekeepingError, match="its token server gives no token"):
            asking.tags("web")


def test_the_user_of_a_token_server_is_not_told_to_others():
    told: list[str] = []

    def reply(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        told.append(headers.get("Authorization", "none"))
        return 200, {}, {}

    with answering(reply) as address:
        for token_url in ("http://127.0.0.2:1", f"https://{address}", f"http://{address}", ""):
            with client(address, username="ada", password="tide", token_url=token_url) as ada:
                ada.manage("GET", "/api/v1/holds")
    assert told == ["none", "none", "Basic YWRhOnRpZGU=", "Basic YWRhOnRpZGU="]


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, b"<html>", HousekeepingError, "the answer is not a JSON object: is this a registry"),
        (200, b"[" * 100_000, HousekeepingError, "the answer is not a JSON object"),
        (200, b" " * (9 << 20), HousekeepingError, "the answer is longer than 8 MiB"),
        (403, b"", Refused, "the registry forbids it"),
        (405, b"", Unsupported, "are deletions switched on"),
        (500, b"", HousekeepingError, "the registry answered 500"),
    ],
)
def test_each_failure_is_one_line(status: int, body: bytes, kind: type[Exception], words: str):
    with (
        answering(lambda *_: (status, {}, body)) as address,
        client(address) as asking,
        pytest.raises(kind, match=words) as caught,
    ):
        asking.manifest("web", "v1")
    assert "\n" not in str(caught.value)


def test_nobody_there():
    nobody = f"127.0.0.1:{registries.free_port()}"
    with client(nobody) as asking, pytest.raises(HousekeepingError) as caught:
        asking.catalogue()
    assert str(caught.value) == f"http://{nobody}/v2/_catalog: the registry does not answer: connection refused"
    with client(nobody) as asking, pytest.raises(HousekeepingError, match="connection refused"):
        asking.delete("web", DIGEST)


def test_the_next_page_is_always_of_the_same_registry():
    """A link elsewhere is not followed there."""
    asked: list[str] = []

    def reply(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        asked.append(path)
        if "last=b" in path:
            return 200, {}, {"repositories": ["c"]}
        return 200, {"Link": '<http://169.254.169.254/latest?n=2&last=b>; rel="next"'}, {"repositories": ["a", "b", 7]}

    with answering(reply) as address, client(address) as asking:
        assert asking.catalogue() == ["a", "b", "c"]
    assert asked == ["/v2/_catalog", "/v2/_catalog?n=2&last=b"]


def test_a_manifest_whose_digest_is_not_told_is_hashed():
    reply: Reply = (200, {"Docker-Content-Digest": "../../etc"}, b"{}")
    with answering(lambda *_: reply) as address, client(address) as asking:
        digest = asking.digest("web", "v1")
    assert digest == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_where_plain_http_is_spoken():
    assert RegistryClient("localhost:7750").url == "http://localhost:7750"
    assert RegistryClient("[::1]:7750").url == "http://[::1]:7750"
    assert RegistryClient("registry.example.com").url == "https://registry.example.com"
    assert RegistryClient("http://10.0.0.1:7750/").url == "http://10.0.0.1:7750"


def test_no_proxy_on_the_way_to_this_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{registries.free_port()}")
    with answering(lambda *_: (200, {}, {"tags": None})) as address, client(address) as asking:
        assert asking.tags("web") == []
        assert asking.delete("web", DIGEST)
