"""`docker search`, and the pages for people."""

from __future__ import annotations

import pytest

from tests.engine.registry.conftest import OCI_INDEX, OCI_MANIFEST


async def test_search_in_dockers_words(ours):
    for name in ("web", "team/web", "team/web-admin", "other/website", "db"):
        await ours.put_image(name, "1")
    async with ours.http.get(f"{ours.url}/v1/_ping") as answer:
        assert await answer.json() == {"standalone": True}
        assert answer.headers["X-Docker-Registry-Standalone"] == "true"
    async with ours.http.get(f"{ours.url}/v1/search", params={"q": "WEB", "n": "3"}) as answer:
        found = await answer.json()
    assert [result["name"] for result in found["results"]] == ["team/web", "web", "other/website"]
    assert (found["query"], found["num_results"], found["num_pages"], found["page"]) == ("web", 4, 2, 1)
    assert set(found["results"][0]) == {"name", "description", "is_official", "is_automated", "star_count"}
    async with ours.http.get(f"{ours.url}/v1/search", params={"q": "web", "n": "3", "page": "2"}) as answer:
        assert [result["name"] for result in (await answer.json())["results"]] == ["team/web-admin"]
    async with ours.http.get(f"{ours.url}/v1/search", params={"q": "nothing"}) as answer:
        assert (await answer.json())["results"] == []


@pytest.mark.parametrize("query", ["n=0", "n=x", "n=-1", "page=0", "n=²"])
async def test_search_with_nonsense(ours, query):
    async with ours.http.get(f"{ours.url}/v1/search?q=a&{query}") as answer:
        assert answer.status == 400


async def test_repositories_tags_sizes_and_digests(ours):
    digest = await ours.put_image("team/web", "1.0", b"x" * 5_000_000)
    inner = [digest, await ours.put_image("team/web", None, b"y" * 1000)]
    entries = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": each,
            "size": 1,
            "platform": {"architecture": architecture, "os": "linux"},
        }
        for each, architecture in zip(inner, ("amd64", "arm64"), strict=True)
    ]
    index = await ours.put_manifest(
        "team/web", "multi", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    )
    await ours.put_image("db", "1")
    async with ours.http.get(f"{ours.url}/") as answer:
        assert answer.content_type == "text/html"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        page = await answer.text()
    assert '<a href="/repositories/team/web">team/web</a>' in page
    assert '<a href="/repositories/db">db</a>' in page
    async with ours.http.get(f"{ours.url}/?q=WEB") as answer:
        page = await answer.text()
        assert "team/web" in page
        assert "/repositories/db" not in page
    async with ours.http.get(f"{ours.url}/repositories/team/web") as answer:
        page = await answer.text()
    for expected in (digest, index, "1.0", "multi", "linux/amd64, linux/arm64", "5 MB", f"{ours.host}/team/web:"):
        assert expected in page
    async with ours.http.get(f"{ours.url}/repositories/none") as answer:
        assert answer.status == 404


async def test_many_repositories_in_pages(ours):
    blob = await ours.put_blob("seed", b"x")
    for number in range(205):
        url = f"{ours.url}/v2/r{number:03}/blobs/uploads/"
        async with ours.http.post(url, params={"mount": blob, "from": "seed"}) as answer:
            assert answer.status == 201
    async with ours.http.get(f"{ours.url}/") as answer:
        page = await answer.text()
    assert page.count("/repositories/r") == 200
    assert "/?q=&amp;last=r199" in page
    async with ours.http.get(f"{ours.url}/?q=&last=r199") as answer:
        assert (await answer.text()).count("/repositories/") == 6


async def test_what_a_stranger_types_is_text(ours):
    async with ours.http.get(f"{ours.url}/", params={"q": '"><script>alert(1)</script>'}) as answer:
        page = await answer.text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


async def test_visibility_of_a_repository(ours):
    await ours.put_image("web", "1")
    url = f"{ours.url}/api/v1/repositories/web"
    for public in (True, False):
        async with ours.http.put(url, json={"public": public}) as answer:
            assert answer.status == 200
        async with ours.http.get(url) as answer:
            assert await answer.json() == {"name": "web", "public": public}
        async with ours.http.get(f"{ours.url}/repositories/web") as answer:
            assert ("everyone" if public else "its group") in await answer.text()
    for bad in ({"public": "yes"}, {}, {"public": True, "more": 1}):
        async with ours.http.put(url, json=bad) as answer:
            assert answer.status == 400
    async with ours.http.put(f"{ours.url}/api/v1/repositories/none", json={"public": True}) as answer:
        assert answer.status == 404
