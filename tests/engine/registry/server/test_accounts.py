"""Users, groups, public and private repositories: who gets in, and what the others are told."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from engine.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthorized, Unavailable
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import Auth, Patience, RegistryClient, login, pull, push, search
from engine.registry.server import make_app, start
from engine.registry.server.access import passwords, policy
from engine.registry.server.access.accounts import Accounts, User
from engine.registry.server.access.tokens import Signer
from tests import needs
from tests.engine.registry.conftest import Wire

ANN, BOB, ROOT = (Auth(name, f"{name}-password") for name in ("ann", "bob", "root"))
PATIENCE = Patience(attempts=2, first=0.01)


def basic(auth: Auth | None) -> dict[str, str]:
    return {"Authorization": auth.basic or ""} if auth is not None else {}


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    """ann is of team, bob of nobody's, root an administrator."""
    (tmp_path / "registry").mkdir()
    made = Accounts(tmp_path / "registry")
    made.add("ann", ANN.password, ("team",))
    made.add("bob", BOB.password)
    made.add("root", ROOT.password, admin=True)
    return made


@pytest.fixture
async def closed(tmp_path: Path, accounts: Accounts, http: ClientSession) -> AsyncIterator[Wire]:
    runner, port = await start(make_app(tmp_path / "registry"), "127.0.0.1", 0)
    yield Wire(f"http://127.0.0.1:{port}", http)
    await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    async with RegistryClient(patience=PATIENCE) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path):
    made = ImageStore(tmp_path / "images")
    yield made
    made.close()


@pytest.fixture
def image(store: ImageStore, tmp_path: Path):
    from engine.images.config import ImageConfig

    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/file").write_text("content")
    layer = store.add_layer_from_dir(None, tmp_path / "layer")
    return store.create_image(ImageConfig(architecture="amd64"), [layer], None)


async def publish(closed: Wire, name: str, public: bool, auth: Auth | None = ANN) -> int:
    url = f"{closed.url}/api/v1/repositories/{name}"
    async with closed.http.put(url, json={"public": public}, headers=basic(auth)) as answer:
        return answer.status


# -- with our client


async def test_a_group_has_its_repositories_to_itself(closed, client, store, image):
    reference = Reference.parse(f"{closed.host}/team/app:1")
    await push(client, store, image, reference, auth=ANN)
    assert (await pull(client, reference, store, auth=ANN)).id == image.id
    assert (await pull(client, reference, store, auth=ROOT)).id == image.id
    with pytest.raises(Unauthorized):
        await pull(client, reference, store)
    with pytest.raises(NotFound, match="no such repository"):
        await pull(client, reference, store, auth=BOB)
    with pytest.raises(Forbidden, match="bob may not pull or push here"):
        await push(client, store, image, reference, auth=BOB)
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        await pull(client, reference, store, auth=Auth("ann", "wrong-password"))


async def test_a_public_repository_is_open_to_all_for_pulling(closed, client, store, image):
    reference = Reference.parse(f"{closed.host}/team/app:1")
    await push(client, store, image, reference, auth=ANN)
    assert await publish(closed, "team/app", True) == 200
    assert (await pull(client, reference, store)).id == image.id
    assert (await pull(client, reference, store, auth=BOB)).id == image.id
    with pytest.raises(Unauthorized):
        await push(client, store, image, reference)
    with pytest.raises(Forbidden, match="bob may not push here"):
        await push(client, store, image, reference, auth=BOB)
    assert await publish(closed, "team/app", False) == 200
    async with RegistryClient(patience=PATIENCE) as stranger:
        with pytest.raises(Unauthorized):
            await pull(stranger, reference, store)


async def test_every_user_is_a_group(closed, client, store, image):
    await push(client, store, image, Reference.parse(f"{closed.host}/bob/app:1"), auth=BOB)
    await push(client, store, image, Reference.parse(f"{closed.host}/bob:1"), auth=BOB)
    with pytest.raises(Forbidden):
        await push(client, store, image, Reference.parse(f"{closed.host}/bobby/app:1"), auth=BOB)
    await push(client, store, image, Reference.parse(f"{closed.host}/bobby/app:1"), auth=ROOT)


async def test_login(closed, client):
    await login(client, closed.host, ANN)
    for auth in (Auth("ann", "wrong-password"), Auth("nobody", "ann-password")):
        with pytest.raises(Unauthorized, match="incorrect username or password"):
            await login(client, closed.host, auth)


async def test_blobs_of_others_are_not_mounted(closed, client, store, image, tmp_path):
    await push(client, store, image, Reference.parse(f"{closed.host}/team/app:1"), auth=ANN)
    layer = next(digest for digest in store.blobs if digest != image.id)
    async with closed.http.post(
        f"{closed.url}/v2/bob/app/blobs/uploads/", params={"mount": layer, "from": "team/app"}, headers=basic(BOB)
    ) as answer:
        assert answer.status == 202, "an upload like any other"
    async with closed.http.post(
        f"{closed.url}/v2/bob/app/blobs/uploads/", params={"mount": layer}, headers=basic(BOB)
    ) as answer:
        assert answer.status == 202


async def test_a_user_who_is_gone_or_has_another_password(closed, client, store, image, accounts):
    reference = Reference.parse(f"{closed.host}/team/app:1")
    await push(client, store, image, reference, auth=ANN)
    accounts.change("ann", password="another-password")
    async with RegistryClient(patience=PATIENCE) as fresh:
        with pytest.raises(Unauthorized):
            await pull(fresh, reference, store, auth=ANN)
        changed = Auth("ann", "another-password")
        assert await pull(fresh, reference, store, auth=changed)
        accounts.change("ann", groups=())
        with pytest.raises(NotFound):  # although the token says otherwise, and has not ended
            await pull(fresh, reference, store, auth=changed)
        accounts.remove("ann")
        with pytest.raises(Unauthorized):
            await pull(fresh, reference, store, auth=changed)


@needs.programs("skopeo")
async def test_skopeo_logs_in_as_others_do(closed, client, store, image):
    async def skopeo(*words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *("skopeo", "--insecure-policy", *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    await push(client, store, image, Reference.parse(f"{closed.host}/team/app:1"), auth=ANN)
    source, copy = (f"docker://{closed.host}/team/{name}:1" for name in ("app", "copy"))
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    creds = f"ann:{ANN.password}"
    assert await skopeo("copy", "-q", *plain, "--src-creds", creds, "--dest-creds", creds, source, copy) == (0, "")
    status, words = await skopeo("inspect", "--tls-verify=false", copy)
    assert status == 1
    assert "unauthorized" in words
    status, words = await skopeo("inspect", "--tls-verify=false", "--creds", "ann:wrong-password", copy)
    assert status == 1
    await publish(closed, "team/copy", True)
    status, words = await skopeo("inspect", "--tls-verify=false", copy)
    assert (status, json.loads(words)["Architecture"]) == (0, "amd64")


# -- what the others see


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/{}/manifests/1"),
        ("HEAD", "/v2/{}/manifests/1"),
        ("GET", "/v2/{}/blobs/sha256:" + "0" * 64),
        ("GET", "/v2/{}/tags/list"),
        ("GET", "/v2/{}/referrers/sha256:" + "0" * 64),
        ("GET", "/api/v1/repositories/{}"),
        ("GET", "/repositories/{}"),
        ("POST", "/v2/{}/blobs/uploads/"),
        ("PUT", "/v2/{}/manifests/1"),
        ("DELETE", "/v2/{}/manifests/1"),
        ("PUT", "/api/v1/repositories/{}"),
    ],
)
async def test_hidden_and_absent_look_the_same(closed, client, store, image, method, path):
    await push(client, store, image, Reference.parse(f"{closed.host}/team/hidden:1"), auth=ANN)
    for auth in (None, BOB):
        answers = []
        for name in ("team/hidden", "team/absent"):
            url = closed.url + path.format(name)
            async with closed.http.request(method, url, headers=basic(auth), json={"public": True}) as answer:
                text = await answer.text()
                challenge = answer.headers.get("WWW-Authenticate", "")
                answers.append((answer.status, text.replace(name, "NAME"), challenge.replace(name, "NAME")))
        assert answers[0] == answers[1]
        assert answers[0][0] in ((401,) if auth is None and not path.startswith("/repositories") else (401, 403, 404))


async def names(closed: Wire, path: str, auth: Auth | None) -> list[str]:
    async with closed.http.get(closed.url + path, headers=basic(auth)) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found.get("repositories") or [result["name"] for result in found.get("results", [])]


async def test_lists_hold_what_one_may_see(closed, client, store, image):
    for name, auth in (("team/app", ANN), ("team/secret", ANN), ("bob/app", BOB)):
        await push(client, store, image, Reference.parse(f"{closed.host}/{name}:1"), auth=auth)
    await publish(closed, "team/app", True)
    assert await names(closed, "/v2/_catalog", ANN) == ["team/app", "team/secret"]
    assert await names(closed, "/v2/_catalog", BOB) == ["bob/app", "team/app"]
    assert await names(closed, "/v2/_catalog", ROOT) == ["bob/app", "team/app", "team/secret"]
    assert await names(closed, "/v1/search?q=", None) == ["team/app"]
    assert await names(closed, "/v1/search?q=app", BOB) == ["bob/app", "team/app"]
    assert await names(closed, "/v1/search?q=secret", None) == []
    async with closed.http.get(closed.url + "/v2/_catalog") as answer:
        assert answer.status == 401
    async with closed.http.get(closed.url + "/") as answer:
        page = await answer.text()
        assert "team/app" in page
        assert "secret" not in page
    async with closed.http.get(closed.url + "/?login") as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    async with closed.http.get(closed.url + "/?login", headers=basic(ANN)) as answer:
        assert "team/secret" in await answer.text()


async def test_searching_with_our_client(closed, client, store, image, debian_url):
    for name in ("team/app", "team/secret"):
        await push(client, store, image, Reference.parse(f"{closed.host}/{name}:1"), auth=ANN)
    await publish(closed, "team/app", True)
    assert [found.name for found in await search(client, closed.host, "team")] == ["team/app"]
    assert len(await search(client, closed.host, "", auth=ANN)) == 2
    assert len(await search(client, closed.host, "", auth=ANN, limit=1)) == 1
    with pytest.raises(Unauthorized):
        await search(client, closed.host, "", auth=Auth("ann", "wrong-password"))
    with pytest.raises(InvalidInput):
        await search(client, closed.host, "", limit=101)
    with pytest.raises(Unavailable, match="can't be searched"):
        await search(client, debian_url.removeprefix("http://"), "app")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/v1/collect"), ("GET", "/api/v1/holds"), ("PUT", "/api/v1/holds/releases")]
)
async def test_administrators_alone(closed, method, path):
    body: Any = [] if "holds" in path else {}
    for auth, status in ((None, 401), (ANN, 403), (ROOT, 200)):
        async with closed.http.request(method, closed.url + path, headers=basic(auth), json=body) as answer:
            assert answer.status == status, await answer.text()


async def test_only_the_group_publishes(closed, client, store, image):
    await push(client, store, image, Reference.parse(f"{closed.host}/team/app:1"), auth=ANN)
    assert await publish(closed, "team/app", True, BOB) == 404
    assert await publish(closed, "team/app", True, ANN) == 200
    assert await publish(closed, "team/app", False, BOB) == 403
    assert await publish(closed, "team/none", True, ANN) == 404
    assert await publish(closed, "team", True, ANN) == 404, "a folder is no repository"


# -- tokens


async def token(closed: Wire, auth: Auth | None, *scopes: str, **more: str) -> Any:
    query = [("scope", scope) for scope in scopes] + list(more.items())
    async with closed.http.get(closed.url + "/v2/token", params=query, headers=basic(auth)) as answer:
        return answer.status, await answer.json()


async def as_bearer(closed: Wire, path: str, value: str) -> tuple[int, str]:
    async with closed.http.get(closed.url + path, headers={"Authorization": f"Bearer {value}"}) as answer:
        return answer.status, answer.headers.get("WWW-Authenticate", "")


async def test_a_challenge_tells_where_a_token_is_had(closed):
    async with closed.http.get(closed.url + "/v2/") as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{closed.url}/v2/token",service="shipway-registry"'
    async with closed.http.get(closed.url + "/v2/team/app/tags/list") as answer:
        assert answer.headers["WWW-Authenticate"].endswith('scope="repository:team/app:pull"')


async def test_a_token_holds_for_what_it_names(closed, client, store, image):
    await push(client, store, image, Reference.parse(f"{closed.host}/team/app:1"), auth=ANN)
    _, answer = await token(closed, ANN, "repository:team/app:pull,push repository:bob/x:pull", service="s")
    assert await as_bearer(closed, "/v2/team/app/tags/list", answer["token"]) == (200, "")
    assert (await as_bearer(closed, "/v2/", answer["token"]))[0] == 200
    status, challenge = await as_bearer(closed, "/v2/team/other/tags/list", answer["token"])
    assert status == 401
    assert 'error="insufficient_scope"' in challenge
    _, pull_only = await token(closed, ANN, "repository:team/app:pull")
    headers = {"Authorization": f"Bearer {pull_only['access_token']}"}
    async with closed.http.post(f"{closed.url}/v2/team/app/blobs/uploads/", headers=headers) as refused:
        assert refused.status == 401
    _, all_of_it = await token(closed, ANN, "repository:team/app:*")
    async with closed.http.delete(
        f"{closed.url}/v2/team/app/manifests/1", headers={"Authorization": f"Bearer {all_of_it['token']}"}
    ) as deleted:
        assert deleted.status == 202


async def test_tokens_that_are_not_ours(closed):
    _, answer = await token(closed, ANN, "repository:team/app:pull")
    good = answer["token"]
    payload, _, mac = good.partition(".")
    claims = base64.urlsafe_b64decode(payload + "==").replace(b'"ann"', b'"root"')
    forged = base64.urlsafe_b64encode(claims).decode().rstrip("=")
    for bad in ("", "x", "a.b", ".", "ä.ö", payload, f"{payload}.", f"{forged}.{mac}", good[:-2], good + ".x"):
        status, challenge = await as_bearer(closed, "/v2/team/app/tags/list", bad.encode("ascii", "ignore").decode())
        assert status == 401
        assert "Bearer " in challenge
    other = Signer().sign("root", {"team/app": ("pull",)})
    assert (await as_bearer(closed, "/v2/team/app/tags/list", other))[0] == 401


def test_tokens_end(monkeypatch):
    signer = Signer()
    signed = signer.sign("ann", {})
    assert signer.read(signed) is not None
    monkeypatch.setattr("engine.registry.server.access.tokens.time.time", lambda: 1e12)
    assert signer.read(signed) is None


async def test_a_password_in_a_form(closed):
    form = {"grant_type": "password", "username": "ann", "password": ANN.password, "scope": "repository:team/app:pull"}
    async with closed.http.post(closed.url + "/v2/token", data=form) as answer:
        assert answer.status == 200
        value = (await answer.json())["access_token"]
    assert (await as_bearer(closed, "/v2/", value))[0] == 200
    for changed, status in (
        ({"password": "wrong"}, 401),
        ({"grant_type": "refresh_token"}, 400),
        ({"x": "y" * 10**5}, 413),
    ):
        async with closed.http.post(closed.url + "/v2/token", data=form | changed) as answer:
            assert answer.status == status


async def test_many_wrong_passwords_do_not_stop_the_others(closed):
    """Hashing is slow by design: a flood of it is limited, and who is remembered does not wait for it."""
    async with closed.http.get(closed.url + "/v2/", headers=basic(ANN)) as answer:
        assert answer.status == 200

    async def wrong(number: int) -> int:
        async with closed.http.get(closed.url + "/v2/", headers=basic(Auth("ann", f"wrong{number}"))) as answer:
            return answer.status

    flood = [asyncio.create_task(wrong(number)) for number in range(100)]
    async with closed.http.get(closed.url + "/v2/", headers=basic(ANN)) as answer:
        assert answer.status == 200
    assert not all(task.done() for task in flood)
    statuses = set(await asyncio.gather(*flood))
    assert statuses <= {401, 429}


# -- the file


def test_without_accounts_the_registry_is_open_and_stays_closed_after(tmp_path):
    accounts = Accounts(tmp_path)
    assert not accounts.closed
    accounts.add("ann", "ann-password")
    assert accounts.closed
    (tmp_path / "accounts.json").unlink()
    assert accounts.closed, "an accident with the file opens no door"
    assert accounts.users() == {}


async def test_a_file_that_can_not_be_read_lets_nobody_in(closed, tmp_path):
    (tmp_path / "registry/accounts.json").write_text("{")
    for auth in (None, ANN):
        async with closed.http.get(closed.url + "/v2/", headers=basic(auth)) as answer:
            assert answer.status == 503


@pytest.mark.parametrize("name", ["", "Ann", "a/b", "../x", "a" * 65, "a b", "-a", "a:b"])
def test_names_that_can_not_be(tmp_path, name):
    with pytest.raises(InvalidInput, match="invalid name"):
        Accounts(tmp_path).add(name, "long-enough")
    with pytest.raises(InvalidInput, match="invalid name"):
        Accounts(tmp_path).add("ann", "long-enough", (name,))


def test_users_and_groups_are_apart(tmp_path):
    accounts = Accounts(tmp_path)
    accounts.add("ann", "ann-password", ("team",))
    with pytest.raises(Conflict, match="team is a user"):
        accounts.add("team", "team-password")
    with pytest.raises(Conflict, match="ann is a user"):
        accounts.add("eve", "eve-password", ("ann",))
    with pytest.raises(Conflict, match="exists already"):
        accounts.add("ann", "ann-password")
    with pytest.raises(InvalidInput, match="less than 8 characters"):
        accounts.add("bob", "short")
    with pytest.raises(NotFound):
        accounts.remove("bob")
    assert set(accounts.users()) == {"ann"}


def test_passwords_are_not_kept(tmp_path):
    accounts = Accounts(tmp_path)
    accounts.add("ann", "ann-password")
    path = tmp_path / "accounts.json"
    assert b"ann-password" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    user = accounts.get("ann")
    assert user is not None
    assert passwords.matches("ann-password", user.password)
    for wrong in ("ann-Password", ""):
        assert not passwords.matches(wrong, user.password)
    for nonsense in ("", "plain", "scrypt$%$%", "scrypt$$", passwords.NOBODY):
        assert not passwords.matches("ann-password", nonsense)


def test_the_rules():
    ann = User("", ("team",))
    everything, nothing = frozenset({"pull", "push", "delete"}), frozenset()
    for name, user, repository, public, expected in (
        ("ann", ann, "team/app", False, everything),
        ("ann", ann, "team", False, everything),
        ("ann", ann, "ann/own", False, everything),
        ("ann", ann, "teams/app", False, nothing),
        ("ann", ann, "other/team", False, nothing),
        ("ann", ann, "other/app", True, {"pull"}),
        ("", None, "team/app", False, nothing),
        ("", None, "team/app", True, {"pull"}),
        ("root", User("", admin=True), "other/app", False, everything),
    ):
        assert policy.allowed(name, user, repository, public=public) == expected
