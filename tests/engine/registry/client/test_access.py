"""Anonymous, basic and bearer: who gets in, and where secrets never go."""

from __future__ import annotations

import base64
import json
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from engine.errors import Forbidden, InvalidInput, Unauthorized, Unavailable
from engine.images.reference import Reference
from engine.registry.client import Auth, RegistryClient, login, pull, push
from engine.registry.client.credentials import find
from engine.registry.server import make_app, start
from tests.engine.registry.client.conftest import PATIENCE, files_of, is_empty
from tests.engine.registry.client.tokens import BASIC, IDENTITY, PASSWORD, USER, TokenService, basic

ANN = Auth(USER, PASSWORD)
FILES = {"a": b"1"}


@pytest.fixture
async def serving(tmp_path):
    """`await serving(app)`: the port that it listens at."""
    async with AsyncExitStack() as stack:

        async def serve(app: web.Application) -> int:
            runner, port = await start(app, "127.0.0.1", 0)
            stack.push_async_callback(runner.cleanup)
            return port

        yield serve


@pytest.fixture
async def tokens(serving, tmp_path):
    """A registry that takes bearer tokens, as (its host, the token service)."""
    service = TokenService()
    service.realm = f"http://127.0.0.1:{await serving(service.application())}/token"
    app = make_app(tmp_path / "registry")
    app.middlewares.insert(0, service.guard)
    return f"127.0.0.1:{await serving(app)}", service


@pytest.fixture
async def closed(serving, tmp_path):
    """The host of a registry that wants basic credentials."""
    app = make_app(tmp_path / "registry")
    app.middlewares.insert(0, basic)
    return f"127.0.0.1:{await serving(app)}"


# -- basic


async def test_basic_credentials(closed, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{closed}/app:1")
    image = make_image(here, FILES)
    await push(client, here, image, reference, auth=ANN)
    assert files_of(there, await pull(client, reference, there, auth=ANN)) == FILES


@pytest.fixture(params=["closed", "tokens"])
def host(request):
    """A registry that wants basic credentials, and one that wants tokens."""
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, str) else found[0]


async def test_what_docker_login_left_serves_who_says_nothing(host, new_store, make_image, tmp_path):
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    here, there, nowhere = new_store(), new_store(), new_store()
    reference = Reference.parse(f"{host}/app:1")
    async with RegistryClient(patience=PATIENCE, credentials=config) as client:
        await push(client, here, make_image(here, FILES), reference)
        assert files_of(there, await pull(client, reference, there)) == FILES
        with pytest.raises(Unauthorized):
            await pull(client, reference, nowhere, auth=Auth(USER, "wrong"))


def test_a_login_file_that_is_no_json_is_named(tmp_path):
    config = tmp_path / "config.json"
    config.write_bytes(b'{"credsStore":"\xff"}')
    with pytest.raises(InvalidInput, match=f"cannot read {config}: "):
        find("registry.example.com", config)


@pytest.mark.parametrize("auth", [None, Auth(USER, "wrong")])
async def test_without_the_right_credentials(closed, client, store, make_image, auth):
    reference = Reference.parse(f"{closed}/app:1")
    with pytest.raises(Unauthorized, match=rf"pull access denied for {closed}/app, .*may require 'docker login'"):
        await pull(client, reference, store, auth=auth)
    with pytest.raises(Unauthorized, match=rf"denied: requested access to the resource {closed}/app is denied"):
        await push(client, store, make_image(store, FILES), reference, auth=auth)


async def test_login(closed, client):
    await login(client, closed, ANN)
    await login(client, f"https://{closed}/v1/", ANN)
    with pytest.raises(Unauthorized, match=f"login at {closed}: "):
        await login(client, closed, Auth(USER, "wrong"))
    with pytest.raises(InvalidInput, match="without a username"):
        await login(client, closed, Auth())


# -- bearer


async def test_anonymous_pull_of_what_is_public(tokens, client, new_store, make_image):
    host, service = tokens
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{host}/public/app:1")
    await push(client, here, make_image(here, FILES), reference, auth=ANN)
    async with RegistryClient(patience=PATIENCE) as stranger:
        assert files_of(there, await pull(stranger, reference, there)) == FILES
    method, query, authorization = service.asked[-1]
    assert (method, query["scope"], authorization) == ("GET", ["repository:public/app:pull"], "")
    assert "account" not in query


async def test_one_token_does_for_a_whole_push(tokens, client, store, make_image):
    host, service = tokens
    await push(client, store, make_image(store, FILES, {"b": b"2"}), Reference.parse(f"{host}/team/app:1"), auth=ANN)
    assert [(m, q["scope"], q["account"], a) for m, q, a in service.asked] == [
        ("GET", ["repository:team/app:pull,push"], [USER], BASIC)
    ]
    assert not any(presented.startswith("Basic") for presented in service.presented), "the password is the realm's"


async def test_strangers_see_nothing_of_what_is_private(tokens, client, new_store, make_image):
    host, _ = tokens
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{host}/team/app:1")
    await push(client, here, make_image(here, FILES), reference, auth=ANN)
    with pytest.raises(Unauthorized, match="pull access denied"):
        await pull(client, reference, there)
    with pytest.raises(Unauthorized, match=f"token for {host}: incorrect username or password"):
        await pull(client, reference, there, auth=Auth(USER, "wrong"))
    assert is_empty(there)
    assert files_of(there, await pull(client, reference, there, auth=ANN)) == FILES


async def test_a_token_that_ends_early_is_renewed(tokens, client, new_store, make_image):
    host, service = tokens
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{host}/team/app:1")
    await push(client, here, make_image(here, FILES), reference, auth=ANN)
    service.expire()
    assert files_of(there, await pull(client, reference, there, auth=ANN)) == FILES
    service.expire()
    other = make_image(here, {"b": b"2"})
    await push(client, here, other, Reference.parse(f"{host}/team/app:2"), auth=ANN)


async def test_identity_tokens_are_refreshed(tokens, client, new_store, make_image):
    host, service = tokens
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{host}/team/app:1")
    auth = Auth(identity_token=IDENTITY)
    await push(client, here, make_image(here, FILES), reference, auth=auth)
    assert files_of(there, await pull(client, reference, there, auth=auth)) == FILES
    method, form, authorization = service.asked[0]
    assert (method, authorization) == ("POST", "")
    assert form["scope"] == ["repository:team/app:pull,push"]
    await login(client, host, auth)
    with pytest.raises(Unauthorized, match="unknown refresh token"):
        await login(client, host, Auth(identity_token="forged"))


async def test_login_by_token(tokens, client):
    host, service = tokens
    await login(client, host, ANN)
    assert service.asked[-1][1].get("scope") is None
    with pytest.raises(Unauthorized):
        await login(client, host, Auth(USER, "wrong"))


async def test_a_realm_that_limits_its_rate_is_asked_again(tokens, client, store, serving):
    host, service = tokens
    answers = [429, 503]

    async def limited(request: web.Request) -> web.Response:
        if answers:
            return web.Response(status=answers.pop(), headers={"Retry-After": "0"})
        return await service._answer(request)

    app = web.Application()
    app.router.add_get("/token", limited)
    service.realm = f"http://127.0.0.1:{await serving(app)}/token"
    await login(client, host, ANN)
    assert answers == []


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"token": "two\\nlines"}', b"x" * 400_000])
async def test_answers_that_are_no_token(tokens, client, serving, answer):
    host, service = tokens

    async def wrong(request: web.Request) -> web.Response:
        return web.Response(body=answer)

    app = web.Application()
    app.router.add_get("/token", wrong)
    service.realm = f"http://127.0.0.1:{await serving(app)}/token"
    with pytest.raises((Unauthorized, InvalidInput), match="token") as caught:
        await login(client, host, ANN)
    assert "\n" not in str(caught.value)


async def test_a_foreign_realm_never_gets_the_password(tokens, client, store, serving):
    host, service = tokens
    asked: list[str] = []

    async def steal(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization", ""))
        return web.json_response({"token": "worthless"})

    app = web.Application()
    app.router.add_route("*", "/token", steal)
    # The same machine by another name is another host: a name says nothing of who answers for it.
    service.realm = f"http://localhost:{await serving(app)}/token"
    for auth in (ANN, Auth(identity_token=IDENTITY)):
        with pytest.raises(Forbidden, match=r"wants the password sent to http://localhost:.*nothing was sent"):
            await pull(client, Reference.parse(f"{host}/team/app:1"), store, auth=auth)
    assert asked == []
    async with RegistryClient(patience=PATIENCE, trusted_realms=("localhost",)) as trusting:
        with pytest.raises(Unauthorized):
            await pull(trusting, Reference.parse(f"{host}/team/app:1"), store, auth=ANN)
    assert asked
    assert set(asked) == {BASIC}


async def test_a_realm_can_not_send_the_password_on(tokens, client, serving):
    host, service = tokens
    service.realm = service.realm.replace("127.0.0.1", "localhost")
    onward: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://localhost:{thief}/token")

    async def steal(request: web.Request) -> web.Response:
        onward.append(request.headers.get("Authorization", ""))
        return web.json_response({"token": "worthless"})

    app, other = web.Application(), web.Application()
    app.router.add_get("/token", redirect)
    other.router.add_get("/token", steal)
    thief = await serving(other)
    service.realm = f"http://127.0.0.1:{await serving(app)}/token"
    with pytest.raises(Unavailable, match="HTTP 307"):
        await login(client, host, ANN)
    assert onward == []


# -- redirects


async def test_storage_elsewhere_gets_no_token(tokens, client, new_store, make_image, serving, tmp_path):
    host, service = tokens
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{host}/team/app:1")
    await push(client, here, make_image(here, FILES), reference, auth=ANN)
    got: list[dict[str, str]] = []

    async def storage(request: web.Request) -> web.FileResponse:
        got.append({**request.headers, "query": request.raw_path.partition("?")[2]})
        return web.FileResponse(tmp_path / "registry" / "blobs" / "sha256" / request.match_info["hex"])

    app = web.Application()
    app.router.add_get("/bucket/{hex}", storage)
    port = await serving(app)
    query = "X-Amz-Signature=a%2Fb%3D%3D&X-Amz-Expires=60"

    service.storage = f"http://localhost:{port}/bucket/{{hex}}?{query}"
    image = await pull(client, reference, there, auth=ANN)
    assert files_of(there, image) == FILES
    assert len(got) == 2, "the config and a layer"
    assert all("Authorization" not in headers for headers in got)
    assert all(headers["query"] == query for headers in got), "signed: not one byte may change"


@pytest.mark.parametrize(
    ("location", "kind", "why"),
    [
        ("", Unavailable, "unusable Location"),
        ("ftp://127.0.0.1/x", Unavailable, "unusable Location"),
        ("http://user:secret@127.0.0.1/x", Unavailable, "unusable Location"),
        ("http://169.254.169.254/latest/meta-data", Forbidden, "points to 169.254.169.254"),
        ("http://0.0.0.0/x", Forbidden, "points to 0.0.0.0"),
    ],
)
async def test_redirects_that_are_not_followed(serving, client, store, location, kind, why):
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": location})

    app = web.Application()
    app.router.add_get("/v2/", _empty)
    app.router.add_get("/v2/{rest:.+}", redirect)
    host = f"127.0.0.1:{await serving(app)}"
    with pytest.raises(kind, match=why) as caught:
        await pull(client, Reference.parse(f"{host}/app:1"), store)
    assert "secret" not in str(caught.value)


async def test_redirects_end(serving, client, store):
    hops = 0

    async def redirect(request: web.Request) -> web.Response:
        nonlocal hops
        hops += 1
        return web.Response(status=302, headers={"Location": "/v2/app/manifests/again"})

    app = web.Application()
    app.router.add_get("/v2/", _empty)
    app.router.add_get("/v2/{rest:.+}", redirect)
    host = f"127.0.0.1:{await serving(app)}"
    with pytest.raises(Unavailable, match="redirects"):
        await pull(client, Reference.parse(f"{host}/app:1"), store)
    assert hops == 6


async def _empty(request: web.Request) -> web.Response:
    return web.json_response({})


# -- the list of errors


async def test_what_the_registry_says_is_passed_on(serving, client, store):
    async def refuse(request: web.Request) -> web.Response:
        errors = [{"code": "DENIED", "message": "quota\nreached"}, {"code": "UNKNOWN", "message": "else"}]
        return web.Response(status=403, body=json.dumps({"errors": errors}).encode())

    app = web.Application()
    app.router.add_get("/v2/", _empty)
    app.router.add_get("/v2/{rest:.+}", refuse)
    host = f"127.0.0.1:{await serving(app)}"
    with pytest.raises(Forbidden, match=r"denied: quota reached; unknown: else$"):
        await pull(client, Reference.parse(f"{host}/app:1"), store)
