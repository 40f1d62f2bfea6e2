"""Docker's `config.json`: what `docker login` left behind, and credential helpers."""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
from pathlib import Path

import msgspec

from engine.errors import InvalidInput
from engine.images.descriptor import MALFORMED
from engine.registry.client.auth import Auth

HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[a-zA-Z0-9_.-]+\Z")
_HELPER_SECONDS = 30
_TOKEN_USER = "<token>"  # noqa: S105  (what helpers answer when the secret is an identity token)


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _Config(msgspec.Struct):
    auths: dict[str, _Entry] = {}
    creds_store: str = msgspec.field(default="", name="credsStore")
    cred_helpers: dict[str, str] = msgspec.field(default_factory=dict, name="credHelpers")


class _Answer(msgspec.Struct, rename="pascal"):
    username: str = ""
    secret: str = ""


def find(domain: str, path: Path | None = None) -> Auth | None:
    """What is known for `domain`, None when nothing is. Raises InvalidInput for a file that can't be read.

    A helper may ask a key ring and take its time: call it in a thread.
    """
    path = path or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = msgspec.json.decode(path.read_bytes(), type=_Config)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (*MALFORMED, OSError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from None
    key = HUB_KEY if domain == "docker.io" else domain
    helper = config.cred_helpers.get(key) or config.cred_helpers.get(domain) or config.creds_store
    if helper:
        found = _ask(helper, key)
        if found is not None:
            return found
    for name, entry in config.auths.items():
        if name == key or _host(name) == domain:
            return _read(entry, path, name)
    return None


def _host(key: str) -> str:
    """`https://registry.example.com/v1/` is how old clients wrote `registry.example.com`."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _read(entry: _Entry, path: Path, name: str) -> Auth | None:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            username, _, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidInput(f"{path}: the entry of {name} is not base64 of name:password") from None
    password = password.rstrip("\0")
    if not username and not entry.identitytoken:
        return None
    return Auth(username, password, entry.identitytoken)


def _ask(helper: str, key: str) -> Auth | None:
    if not _HELPER.match(helper):
        raise InvalidInput(f"invalid name of a credential helper: {helper[:100]!r}")
    command = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [command, "get"], input=key.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except FileNotFoundError:
        raise InvalidInput(f"{command} is not on PATH: install it, or log in without it") from None
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"{command} did not answer within {_HELPER_SECONDS} s") from None
    if done.returncode != 0:
        if b"credentials not found" in done.stdout + done.stderr:
            return None
        raise InvalidInput(f"{command} failed with exit code {done.returncode}")
    try:
        answer = msgspec.json.decode(done.stdout, type=_Answer)
    except MALFORMED:
        raise InvalidInput(f"{command} answered something that is not JSON") from None
    if answer.username == _TOKEN_USER:
        return Auth("", "", answer.secret)
    return Auth(answer.username, answer.secret)
