"""Requests to a registry, through docker-registry-client: the only module that knows that package.

It has traps. Its import silences every warning of the process. It checks certificates for tokens only when told
to. It reads one page of a catalogue. Its manifests are those of schema 1, which registries no longer serve, and
whose digest deletes nothing. So pages are followed and manifests read by our own requests, over its addresses,
tokens and headers.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import InsecureRequestWarning

from deploy.errors import DeployError

with warnings.catch_warnings():
    from docker_registry_client._BaseClient import BaseClientV2

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    *INDEXES,
)
DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,128}")
NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+|/)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_Method = Callable[..., requests.Response]
T = TypeVar("T")
_LONGEST = 8 << 20
"""Bytes of the largest answer that is read."""
_MOST_PAGES = 10_000
_PORTS = {"http": ":80", "https": ":443"}


class HousekeepingError(DeployError):
    """The registry can't be reached, or does not do what was asked; one line, with the remedy if there is one."""


class Refused(HousekeepingError):
    """The registry forbids it (403): it holds the image itself, or this user may not."""


class Unsupported(HousekeepingError):
    """The registry can't do that, or is set up not to (400, 405)."""


class RegistryClient:
    """One registry. Every method raises HousekeepingError; None and False stand for what is not there.

    `url` is `http://…`, `https://…`, or a bare `HOST:PORT`: plain HTTP on the loopback address, else HTTPS.
    `verify` is False for any certificate, or the path of an authority's. `token_url` is where tokens come from,
    for registries that want them: `<token_url>/v2/token`.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        token_url: str = "",
        verify: bool | str = True,
        timeout: float = 30.0,
    ) -> None:
        self.url = _with_scheme(url).rstrip("/")
        self._verify = verify
        # Where tokens come from elsewhere, the user is that server's business alone.
        own = not token_url or _origin(token_url) == _origin(self.url)
        self._user = (username, password or "") if username and own else None
        self._client = BaseClientV2(
            self.url,
            verify_ssl=verify,
            username=username,
            password=password,
            auth_service_url=token_url,
            api_timeout=timeout,
        )
        if token_url:
            # Sent to the registry they would displace the token.
            self._client.method_kwargs.pop("auth", None)
        host = urlsplit(self.url).hostname or ""
        if _is_loopback(host):
            # A proxy of the environment is not on the way to this machine.
            self._client.method_kwargs["proxies"] = {"no_proxy": host}
        self._session = requests.Session()

    def close(self) -> None:
        """Lets its connections go."""
        self._session.close()

    def catalogue(self) -> list[str] | None:
        """The names of all repositories."""
        return self._listed("/v2/_catalog", "registry:catalog:*", "repositories")

    def tags(self, repository: str) -> list[str] | None:
        """The names of a repository's tags."""
        return self._listed(f"/v2/{repository}/tags/list", _scope(repository), "tags")

    def digest(self, repository: str, reference: str) -> str | None:
        """The digest of the manifest that a tag names."""
        answer = self._manifest(self._head, repository, reference)
        if answer is None:
            return None
        known = answer.headers.get("Docker-Content-Digest", "")
        if DIGEST.fullmatch(known):
            return known
        answer = self._manifest(self._get, repository, reference)
        return f"sha256:{hashlib.sha256(_read(answer)).hexdigest()}" if answer is not None else None

    def manifest(self, repository: str, reference: str) -> dict[str, Any] | None:
        """What a manifest or an index says."""
        return _object(self._manifest(self._get, repository, reference))

    def blob(self, repository: str, digest: str) -> dict[str, Any] | None:
        """What a blob of JSON, such as an image's configuration, says."""
        return _object(
            self._ask(self._get, BaseClientV2.BLOB, _scope(repository), "*/*", name=repository, digest=digest)
        )

    def delete(self, repository: str, reference: str) -> bool:
        """Deletes a manifest by digest; a tag alone where the registry can (else Unsupported)."""
        with _explained(f"{self.url}: {repository} {reference}"):
            return self._there(lambda: self._client.delete_manifest(repository, reference)) is not None

    def manage(self, method: str, path: str, value: Any = None) -> dict[str, Any] | None:
        """Asks the embedded registry's own API, which takes JSON and answers with it."""
        options = {**self._client.method_kwargs, "auth": self._user}

        def ask() -> requests.Response:
            answer = self._session.request(method, self.url + path, json=value, stream=True, **options)
            answer.raise_for_status()
            return answer

        with _explained(self.url + path):
            answer = self._there(ask)
        return _object(answer)

    def _manifest(self, method: _Method, repository: str, reference: str) -> requests.Response | None:
        return self._ask(
            method,
            BaseClientV2.MANIFEST,
            _scope(repository),
            ", ".join(MANIFESTS),
            name=repository,
            reference=reference,
        )

    def _listed(self, path: str, scope: str, key: str) -> list[str] | None:
        """The strings under `key` on all pages. Of a next page's link only the query is followed."""
        found: list[str] = []
        query = ""
        for _ in range(_MOST_PAGES):
            answer = self._ask(self._get, "{path}{query}", scope, "application/json", path=path, query=query)
            page = _object(answer)
            if answer is None or page is None:
                return None
            found += [name for name in page.get(key) or () if isinstance(name, str)]
            following = urlsplit(answer.links.get("next", {}).get("url", "")).query
            if not following:
                return found
            query = f"?{following}"
        raise HousekeepingError(f"{self.url}{path}: its pages never end")

    def _ask(self, method: _Method, url: str, scope: str, accept: str, **parts: str) -> requests.Response | None:
        def ask() -> requests.Response:
            self._client.auth.desired_scope = scope
            answer: requests.Response = self._client._http_response(url, method, schema=accept, **parts)
            return answer

        with _explained(self.url + url.format(**parts)):
            return self._there(ask)

    def _there(self, ask: Callable[[], T]) -> T | None:
        """None for what is not there."""
        with warnings.catch_warnings():
            if self._verify is False:
                warnings.simplefilter("ignore", InsecureRequestWarning)
            try:
                return self._with_fresh_token(ask)
            except requests.HTTPError as error:
                error.response.close()
                if error.response.status_code != 404:
                    raise
                return None

    def _with_fresh_token(self, ask: Callable[[], T]) -> T:
        """A token is good for minutes only, and docker-registry-client keeps it for ever."""
        try:
            return ask()
        except requests.HTTPError as error:
            if error.response.status_code != 401 or not self._client.auth.token:
                raise
            error.response.close()
            self._client.auth.token = ""
            return ask()

    def _get(self, url: str, **options: Any) -> requests.Response:
        return self._session.get(url, stream=True, **options)

    def _head(self, url: str, **options: Any) -> requests.Response:
        return self._session.head(url, allow_redirects=True, **options)


def _scope(repository: str) -> str:
    return f"repository:{repository}:*"


def _read(answer: requests.Response) -> bytes:
    """The whole body, if it is of bearable size."""
    with answer, _explained(answer.url):
        body = b""
        for piece in answer.iter_content(1 << 16):
            body += piece
            if len(body) > _LONGEST:
                raise HousekeepingError(f"{answer.url}: the answer is longer than {_LONGEST >> 20} MiB")
        return body


def _object(answer: requests.Response | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    try:
        value = json.loads(_read(answer))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HousekeepingError(f"{answer.url}: the answer is not a JSON object: is this a registry?")
    return value


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except requests.HTTPError as error:
        kind, reason = _reason(error.response.status_code)
        raise kind(f"{what}: {reason}") from error
    except requests.RequestException as error:
        raise HousekeepingError(f"{what}: the registry does not answer: {_innermost(error)}") from error
    except (KeyError, ValueError) as error:
        # What docker-registry-client makes of a token server's refusal.
        raise HousekeepingError(f"{what}: its token server gives no token: check user and password") from error


def _reason(status: int) -> tuple[type[HousekeepingError], str]:
    match status:
        case 401:
            return HousekeepingError, "the registry wants another user or password"
        case 403:
            return Refused, "the registry forbids it"
        case 400 | 405:
            return Unsupported, "the registry does not do that: are deletions switched on in its configuration?"
    return HousekeepingError, f"the registry answered {status}"


def _innermost(error: BaseException) -> str:
    """The words of what lies below layers of wrapping: `connection refused`."""
    while (inner := getattr(error, "reason", None) or next(iter(error.args), None)) and isinstance(inner, Exception):
        error = inner
    words = re.sub(r"^.*\[Errno -?\d+\] |^\w+\(host=[^)]*\): ", "", " ".join(str(error).split()))
    return words[:1].lower() + words[1:]


def _with_scheme(url: str) -> str:
    if "://" in url:
        return url
    return f"{'http' if _is_loopback(urlsplit(f'//{url}').hostname or '') else 'https'}://{url}"


def _origin(url: str) -> tuple[str, str]:
    """Scheme, and host with port: who is asked there."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower().removesuffix(_PORTS.get(parts.scheme, ""))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
