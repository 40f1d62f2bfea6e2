"""What registries and files say, read: challenges, credentials, endpoints, realms. Nothing here speaks to anyone."""

from __future__ import annotations

import base64
import email.utils
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from yarl import URL

from engine.errors import Forbidden, InvalidInput, Unauthorized
from engine.registry.client import Auth, credentials, domain_of
from engine.registry.client.auth import Tokens, may_know_password, token_request
from engine.registry.client.challenge import Challenge, parse
from engine.registry.client.endpoint import candidates, check_reach, is_insecure, is_loopback
from engine.registry.client.failures import retry_after
from engine.registry.client.transport import join

# -- challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a:pull,push",
                    },
                )
            ],
        ),
        ("Basic realm=plain", [Challenge("basic", {"realm": "plain"})]),
        ("Basic", [Challenge("basic")]),
        (
            'BEARER Realm = "a\\"b" , Basic realm="two, three"',
            [Challenge("bearer", {"realm": 'a"b'}), Challenge("basic", {"realm": "two, three"})],
        ),
        ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        ('realm="nobody"', []),
        ("", []),
        ('Bearer realm="not closed', [Challenge("bearer")]),
    ],
)
def test_challenges(header, expected):
    assert parse([header]) == expected


def test_challenges_in_several_headers_and_without_end():
    found = parse(["Basic realm=a", "Bearer " + 'k="v",' * 100_000, "Bearer realm=b"])
    assert [each.scheme for each in found] == ["basic", "bearer"]


# -- realms


@pytest.mark.parametrize(
    ("realm", "registry", "allowed"),
    [
        ("https://auth.docker.io/token", "https://registry-1.docker.io", True),
        ("https://registry.example.com/token", "https://registry.example.com", True),
        ("https://gitlab.example.co.uk/jwt", "https://registry.example.co.uk", True),
        ("https://evil.co.uk/jwt", "https://registry.example.co.uk", False),
        ("https://evil.com/token", "https://registry.example.com", False),
        ("https://example.com.evil.com/token", "https://registry.example.com", False),
        ("http://auth.example.com/token", "https://registry.example.com", False),
        ("http://registry.example.com/token", "https://registry.example.com", False),
        ("http://registry.example.com/token", "http://registry.example.com", True),
        ("https://10.0.0.2/token", "https://10.0.0.1", False),
        ("https://10.0.0.1:5001/token", "https://10.0.0.1:5000", True),
        ("https://auth/token", "https://registry", False),
    ],
)
def test_who_may_know_a_password(realm, registry, allowed):
    assert may_know_password(URL(realm), URL(registry)) is allowed


@pytest.mark.parametrize("realm", ["", "ftp://a/", "/token", "http:///token"])
def test_realms_that_are_none(realm):
    with pytest.raises(Unauthorized, match="names no realm"):
        token_request(Challenge("bearer", {"realm": realm}), URL("https://r.example.com"), None, [])


@pytest.mark.parametrize(
    "realm", ["http://127.0.0.1/", "https://localhost/t", "http://169.254.169.254/t", "https://[::1]/"]
)
def test_a_realm_on_this_machine_is_not_asked(realm):
    with pytest.raises(Forbidden, match="points to"):
        token_request(Challenge("bearer", {"realm": realm}), URL("https://r.example.com"), None, [])


def test_what_a_realm_is_asked():
    challenge = Challenge("bearer", {"realm": "https://r.example.com/t?x=1", "service": "s"})
    asked = token_request(challenge, URL("https://r.example.com"), Auth("ann", "pw"), ["repository:a:pull", "b"])
    assert asked.url.query.getall("scope") == ["repository:a:pull", "b"]
    assert (asked.url.query["service"], asked.url.query["account"], asked.url.query["x"]) == ("s", "ann", "1")
    assert asked.form is None
    refreshed = token_request(challenge, URL("https://r.example.com"), Auth(identity_token="i"), ["a"])
    assert refreshed.url == URL("https://r.example.com/t?x=1"), "no secret in a URL"
    assert refreshed.form is not None
    assert (refreshed.form["refresh_token"], refreshed.form["scope"]) == ("i", "a")


def test_secrets_do_not_show():
    assert "hidden" not in repr(Auth("ann", "hidden", "hidden"))


def test_tokens_are_kept_apart():
    from engine.registry.client.auth import Token

    tokens = Tokens()
    tokens.put("https://a", Auth("ann", "x"), ["r:pull"], Token(token="t"))
    assert tokens.get("https://a", Auth("ann", "x"), ["r:pull"]) == "Bearer t"
    for origin, auth, scope in (
        ("https://b", Auth("ann", "x"), "r:pull"),
        ("https://a", Auth("bob", "x"), "r:pull"),
        ("https://a", None, "r:pull"),
        ("https://a", Auth("ann", "x"), "r:push"),
    ):
        assert tokens.get(origin, auth, [scope]) is None


# -- endpoints


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("registry.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("example.com", False),
    ],
)
def test_loopback(host, expected):
    assert is_loopback(host) is expected


def test_plain_http_only_for_loopback_and_by_name():
    def schemes(domain: str, *insecure: str) -> list[str]:
        return [way.base.scheme for way in candidates(domain, insecure, True)]

    assert schemes("registry.example.com") == ["https"]
    assert schemes("localhost:5000") == ["http", "https"]
    assert schemes("registry.example.com:5000", "registry.example.com:5000") == ["https", "http"]
    assert schemes("10.1.2.3:5000", "10.1.0.0/16") == ["https", "http"]
    assert schemes("10.2.2.3:5000", "10.1.0.0/16", "example.com") == ["https"]
    assert is_insecure("[fd00::1]:5000", ("fd00::/8",))
    assert candidates("docker.io", (), True)[0].base == URL("https://registry-1.docker.io")


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1/", "http://localhost:1/", "http://169.254.0.1/", "http://224.0.0.1/"]
)
def test_out_of_reach(target):
    with pytest.raises(Forbidden):
        check_reach(URL(target), URL("https://registry.example.com"))


def test_loopback_registries_may_point_to_loopback():
    check_reach(URL("http://127.0.0.1:9000/"), URL("http://localhost:5000"))


def test_locations_keep_their_encoding():
    base = URL("https://r.example.com/v2/a/blobs/uploads/")
    assert str(join(base, "/up?_state=a%2Bb%3D%3D&x=%20", "it")) == "https://r.example.com/up?_state=a%2Bb%3D%3D&x=%20"
    assert str(join(base, "https://other.example.com:1/x", "it")) == "https://other.example.com:1/x"


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("", "docker.io"),
        ("http://localhost:5000/v2/", "localhost:5000"),
        ("registry.example.com", "registry.example.com"),
    ],
)
def test_the_domain_of_a_login(address, domain):
    assert domain_of(address) == domain


# -- config.json


def _write(folder: Path, **content: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return path


def _pair(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_what_docker_login_left(tmp_path):
    path = _write(
        tmp_path,
        auths={
            "registry.example.com": {"auth": _pair("ann:pass:word")},
            "https://old.example.com/v1/": {"auth": _pair("old:pw")},
            "https://index.docker.io/v1/": {"auth": _pair("hub:pw")},
            "token.example.com": {"identitytoken": "idt", "auth": _pair("<token>:")},
            "split.example.com": {"username": "sam", "password": "pw"},
            "empty.example.com": {},
        },
        HttpHeaders={"X": "y"},
        psFormat="unknown keys stay out of the way",
    )
    assert credentials.find("registry.example.com", path) == Auth("ann", "pass:word")
    assert credentials.find("old.example.com", path) == Auth("old", "pw")
    assert credentials.find("docker.io", path) == Auth("hub", "pw")
    assert credentials.find("split.example.com", path) == Auth("sam", "pw")
    found = credentials.find("token.example.com", path)
    assert found is not None
    assert found.identity_token == "idt"
    assert credentials.find("empty.example.com", path) is None
    assert credentials.find("elsewhere.example.com", path) is None


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    _write(tmp_path, auths={"r.example.com": {"auth": _pair("ann:pw")}})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert credentials.find("r.example.com") == Auth("ann", "pw")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nowhere"))
    assert credentials.find("r.example.com") is None


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"auths": {"r.example.com": {"auth": "%%%"}}}'])
def test_a_file_that_can_not_be_read(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=str(path)):
        credentials.find("r.example.com", path)


def _helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "bin").mkdir()
    program = folder / "bin" / "docker-credential-tests"
    program.write_text(f"#!/bin/sh\nread host\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_credential_helpers(tmp_path, monkeypatch):
    path = _write(tmp_path, credHelpers={"r.example.com": "tests"}, auths={"r.example.com": {"auth": _pair("no:no")}})
    _helper(tmp_path, monkeypatch, 'printf \'{"ServerURL": "%s", "Username": "ann", "Secret": "from %s"}\' $host $host')
    assert credentials.find("r.example.com", path) == Auth("ann", "from r.example.com")


def test_a_store_for_all_and_identity_tokens(tmp_path, monkeypatch):
    path = _write(tmp_path, credsStore="tests")
    _helper(tmp_path, monkeypatch, 'printf \'{"Username": "<token>", "Secret": "%s"}\' $host')
    assert credentials.find("docker.io", path) == Auth("", "", "https://index.docker.io/v1/")


def test_a_helper_that_knows_nothing_leaves_the_file(tmp_path, monkeypatch):
    path = _write(tmp_path, credsStore="tests", auths={"r.example.com": {"auth": _pair("ann:pw")}})
    _helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    assert credentials.find("r.example.com", path) == Auth("ann", "pw")


@pytest.mark.parametrize(
    ("script", "why"), [("exit 3", "exit code 3"), ("echo nonsense", "not JSON"), (None, "not on PATH")]
)
def test_helpers_that_fail(tmp_path, monkeypatch, script, why):
    path = _write(tmp_path, credsStore="tests")
    if script is not None:
        _helper(tmp_path, monkeypatch, script)
    with pytest.raises(InvalidInput, match=f"docker-credential-tests.*{why}"):
        credentials.find("r.example.com", path)


def test_a_helper_is_a_name_and_no_path(tmp_path):
    with pytest.raises(InvalidInput, match="invalid name of a credential helper"):
        credentials.find("r.example.com", _write(tmp_path, credsStore="../../bin/sh"))


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("3", 3, 3),
        (email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True), 1, 7201),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_how_long_to_wait(text, least, most):
    seconds = retry_after(text)
    assert seconds is not None
    assert least <= seconds <= most


@pytest.mark.parametrize("text", ["", "soon", "-1", "1e9", "²", "99999999"])
def test_waits_that_are_none(text):
    assert retry_after(text) is None
