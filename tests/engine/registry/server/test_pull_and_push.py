"""The distribution-spec's endpoints, over real HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict
from engine.registry.server import make_app, start
from engine.registry.server.state import Limits
from tests.engine.registry.conftest import OCI_INDEX, OCI_MANIFEST, digest_of

EMPTY = "application/vnd.oci.empty.v1+json"


async def code(answer: Any) -> str:
    return str((await answer.json())["errors"][0]["code"])


async def test_the_base_endpoint_names_the_version(ours):
    async with ours.http.get(ours.url + "/v2/") as answer:
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"


async def test_a_blob_comes_back_whole_and_in_part(ours):
    data = os.urandom(3_000_000)
    digest = await ours.put_blob("team/app", data)
    url = f"{ours.url}/v2/team/app/blobs/{digest}"
    async with ours.http.get(url) as answer:
        assert await answer.read() == data
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Content-Type"] == "application/octet-stream"
    async with ours.http.head(url) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "3000000")
    async with ours.http.get(url, headers={"Range": "bytes=2999990-"}) as answer:
        assert answer.status == 206
        assert await answer.read() == data[-10:]
    async with ours.http.get(url, headers={"Range": "bytes=3000000-"}) as answer:
        assert answer.status == 416
        assert answer.headers["Content-Range"] == "bytes */3000000"


async def test_a_client_that_goes_away_in_the_middle(ours, caplog):
    data = os.urandom(20_000_000)
    digest = await ours.put_blob("app", data)
    for _ in range(5):
        async with ours.http.get(f"{ours.url}/v2/app/blobs/{digest}") as answer:
            assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
            assert await answer.content.readexactly(1000) == data[:1000]
            answer.close()
    async with ours.http.get(f"{ours.url}/v2/app/blobs/{digest}") as answer:
        assert await answer.read() == data
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-0", 206, (0, 1)),
        ("bytes=100-199", 206, (100, 200)),
        ("bytes=100000-", 206, (100_000, 200_000)),
        ("bytes=-10", 206, (199_990, 200_000)),
        ("bytes=-900000", 206, (0, 200_000)),
        ("bytes=199999-900000", 206, (199_999, 200_000)),
        ("bytes=200000-", 416, None),
        ("bytes=9-3", 416, None),
        ("lines=1-2", 416, None),
    ],
)
async def test_ranges(ours, asked, status, span):
    data = os.urandom(200_000)
    digest = await ours.put_blob("app", data)
    async with ours.http.get(f"{ours.url}/v2/app/blobs/{digest}", headers={"Range": asked}) as answer:
        assert answer.status == status
        if span is not None:
            assert await answer.read() == data[slice(*span)]
            assert answer.headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/200000"


async def test_the_etag_of_a_blob_is_its_digest_whenever_it_was_touched(ours):
    digest = await ours.put_blob("app", b"x" * 100_000)
    url = f"{ours.url}/v2/app/blobs/{digest}"
    tag = {"ETag": f'"{digest}"'}
    for method in ("HEAD", "GET"):
        async with ours.http.request(method, url) as answer:
            assert answer.headers.items() >= tag.items()
    async with ours.http.get(url, headers={"If-None-Match": f'"other", "{digest}"'}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with ours.http.get(url, headers={"If-Range": f'"{digest}"', "Range": "bytes=5-"}) as answer:
        assert (answer.status, len(await answer.read())) == (206, 99_995)


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/v2/app/blobs/sha256:" + "0" * 64, 404, "BLOB_UNKNOWN"),
        ("/v2/app/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("/v2/app/blobs/md5:" + "0" * 32, 400, "DIGEST_INVALID"),
        ("/v2/App/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/../b/tags/list", 404, "NAME_UNKNOWN"),  # normalised by the client to /v2/b
        ("/v2/a%2F..%2F..%2Fb/tags/list", 400, "NAME_INVALID"),
        ("/v2/_uploads/tags/list", 400, "NAME_INVALID"),
        ("/v2/app/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/app/manifests/latest", 404, "NAME_UNKNOWN"),
        ("/v2/app/manifests/-x", 400, "TAG_INVALID"),
        ("/v2/app/blobs/uploads/0123", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("/nowhere", 404, "NOT_FOUND"),
    ],
)
async def test_what_is_not_there_or_malformed(ours, path, status, expected):
    async with ours.http.get(ours.url + path) as answer:
        assert (answer.status, await code(answer)) == (status, expected)


async def test_a_chunked_upload_in_order_resumes_and_refuses_disorder(ours):
    data = os.urandom(300_000)
    async with ours.http.post(ours.url + "/v2/app/blobs/uploads/") as answer:
        assert answer.status == 202
        location = ours.url + answer.headers["Location"]
    for start_at in (0, 100_000):
        headers = {"Content-Range": f"{start_at}-{start_at + 99_999}"}
        async with ours.http.patch(location, data=data[start_at : start_at + 100_000], headers=headers) as answer:
            assert answer.status == 202
            assert answer.headers["Range"] == f"0-{start_at + 99_999}"
    async with ours.http.patch(location, data=b"x" * 10, headers={"Content-Range": "5-14"}) as answer:
        assert answer.status == 416
        assert answer.headers["Range"] == "0-199999"
    async with ours.http.get(location) as answer:
        assert (answer.status, answer.headers["Range"]) == (204, "0-199999")
    async with ours.http.put(f"{location}?digest={digest_of(data)}", data=data[200_000:]) as answer:
        assert answer.status == 201
        assert answer.headers["Location"] == f"/v2/app/blobs/{digest_of(data)}"
    async with ours.http.get(location) as answer:
        assert answer.status == 404


async def test_an_upload_goes_on_after_a_restart(tmp_path, http):
    data = os.urandom(200_000)
    runner, port = await start(make_app(tmp_path / "r"), "127.0.0.1", 0)
    async with http.post(f"http://127.0.0.1:{port}/v2/app/blobs/uploads/") as answer:
        location = answer.headers["Location"]
    async with http.patch(f"http://127.0.0.1:{port}{location}", data=data[:150_000]) as answer:
        assert answer.status == 202
    await runner.cleanup()
    runner, port = await start(make_app(tmp_path / "r"), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}{location}"
    async with http.get(url) as answer:
        assert answer.headers["Range"] == "0-149999"
    async with http.put(f"{url}?digest={digest_of(data)}", data=data[150_000:]) as answer:
        assert answer.status == 201
    await runner.cleanup()


async def test_uploads_at_rest_hold_no_file_open(ours):
    """Clients that go away leave them behind, and there are only so many descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    locations = []
    for _ in range(30):
        async with ours.http.post(ours.url + "/v2/app/blobs/uploads/") as answer:
            locations.append(ours.url + answer.headers["Location"])
        async with ours.http.patch(locations[-1], data=b"a") as answer:
            assert answer.status == 202
    assert len(os.listdir("/proc/self/fd")) < before + 10
    async with ours.http.patch(locations[0], data=b"b") as answer:
        assert answer.headers["Range"] == "0-1"
    async with ours.http.put(f"{locations[0]}?digest={digest_of(b'abc')}", data=b"c") as answer:
        assert answer.status == 201


async def test_wrong_bytes_are_refused_and_leave_nothing(ours, tmp_path):
    url = f"{ours.url}/v2/app/blobs/uploads/?digest={digest_of(b'right')}"
    async with ours.http.post(url, data=b"wrong") as answer:
        assert (answer.status, await code(answer)) == (400, "DIGEST_INVALID")
    assert list((tmp_path / "registry/uploads").iterdir()) == []
    assert list((tmp_path / "registry/blobs").iterdir()) == []


async def test_sha512(ours):
    data = b"content"
    digest = "sha512:" + hashlib.sha512(data).hexdigest()
    async with ours.http.post(f"{ours.url}/v2/app/blobs/uploads/?digest={digest}", data=data) as answer:
        assert answer.status == 201
    async with ours.http.get(f"{ours.url}/v2/app/blobs/{digest}") as answer:
        assert await answer.read() == data


@pytest.mark.parametrize("source", ["&from=one", ""])
async def test_a_blob_is_mounted_from_another_repository(ours, source):
    digest = await ours.put_blob("one", b"shared")
    async with ours.http.post(f"{ours.url}/v2/two/blobs/uploads/?mount={digest}{source}") as answer:
        assert answer.status == 201
    async with ours.http.get(f"{ours.url}/v2/two/blobs/{digest}") as answer:
        assert await answer.read() == b"shared"


async def test_a_mount_of_what_is_not_there_becomes_an_upload(ours):
    missing = digest_of(b"nobody has it")
    async with ours.http.post(f"{ours.url}/v2/two/blobs/uploads/?mount={missing}&from=one") as answer:
        assert answer.status == 202
        assert "/blobs/uploads/" in answer.headers["Location"]


async def test_a_manifest_by_tag_and_digest(ours):
    digest = await ours.put_image("app", "v1")
    for reference in ("v1", digest):
        async with ours.http.get(f"{ours.url}/v2/app/manifests/{reference}") as answer:
            assert answer.status == 200
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.headers["Content-Type"] == OCI_MANIFEST
            body = await answer.read()
            assert digest_of(body) == digest
        async with ours.http.head(f"{ours.url}/v2/app/manifests/{reference}") as answer:
            assert answer.headers["Content-Length"] == str(len(body))
    async with ours.http.get(f"{ours.url}/v2/app/manifests/v1", headers={"If-None-Match": f'"{digest}"'}) as answer:
        assert answer.status == 304


async def test_a_manifest_needs_its_parts(ours):
    blob = await ours.put_blob("app", b"{}")
    missing = {"mediaType": EMPTY, "digest": digest_of(b"no"), "size": 2}
    present = {"mediaType": EMPTY, "digest": blob, "size": 2}
    wrong_size = {**present, "size": 3}
    for config, layer, expected in (
        (present, missing, "MANIFEST_BLOB_UNKNOWN"),
        (missing, present, "MANIFEST_BLOB_UNKNOWN"),
        (wrong_size, present, "MANIFEST_INVALID"),
    ):
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
        async with ours.http.put(
            f"{ours.url}/v2/app/manifests/v1", json=manifest, headers={"Content-Type": OCI_MANIFEST}
        ) as answer:
            assert await code(answer) == expected
    async with ours.http.get(f"{ours.url}/v2/app/manifests/v1") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"schemaVersion":1}',
        b"[" * 100_000,
        b'{"schemaVersion":2,"config":{},"layers":[]}',
        b'{"schemaVersion":2,"manifests":[],"layers":[]}',
    ],
)
async def test_malformed_manifests(ours, body):
    async with ours.http.put(
        f"{ours.url}/v2/app/manifests/v1", data=body, headers={"Content-Type": OCI_MANIFEST}
    ) as answer:
        assert (answer.status, await code(answer)) == (400, "MANIFEST_INVALID")


async def test_sizes_are_bounded(tmp_path, http):
    app = make_app(tmp_path / "r", limits=Limits(manifest=1000, blob=100_000))
    runner, port = await start(app, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}/v2/app"
    async with http.put(f"{url}/manifests/v1", data=b" " * 1001) as answer:
        assert (answer.status, await code(answer)) == (413, "SIZE_INVALID")
    blob = os.urandom(100_001)
    async with http.post(f"{url}/blobs/uploads/?digest={digest_of(blob)}", data=blob) as answer:
        assert (answer.status, await code(answer)) == (413, "SIZE_INVALID")
    await runner.cleanup()


async def test_tags_are_listed_in_pages(ours):
    for tag in ("b", "A", "c", "a", "v1"):
        await ours.put_image("app", tag)
    url = f"{ours.url}/v2/app/tags/list"
    async with ours.http.get(url) as answer:
        assert await answer.json() == {"name": "app", "tags": ["A", "a", "b", "c", "v1"]}
    async with ours.http.get(url + "?n=2") as answer:
        assert (await answer.json())["tags"] == ["A", "a"]
        next_page = answer.links["next"]["url"]
    async with ours.http.get(next_page) as answer:
        assert (await answer.json())["tags"] == ["b", "c"]
    async with ours.http.get(url + "?n=0") as answer:
        assert (await answer.json())["tags"] == []
        assert "Link" not in answer.headers
    async with ours.http.get(url + "?n=-1") as answer:
        assert answer.status == 400


async def test_the_catalogue_in_pages(ours):
    for name in ("b", "a/x", "a"):
        await ours.put_image(name, "v1")
    async with ours.http.get(f"{ours.url}/v2/_catalog?n=2") as answer:
        assert await answer.json() == {"repositories": ["a", "a/x"]}
        next_page = answer.links["next"]["url"]
    async with ours.http.get(next_page) as answer:
        assert await answer.json() == {"repositories": ["b"]}
        assert "Link" not in answer.headers


async def test_deleting_a_tag_leaves_the_manifest_and_deleting_that_leaves_no_tag(ours):
    digest = await ours.put_image("app", "v1")
    await ours.put_image("app", "v2")
    url = f"{ours.url}/v2/app/manifests"
    async with ours.http.delete(f"{url}/v1") as answer:
        assert answer.status == 202
    async with ours.http.get(f"{url}/v1") as answer:
        assert answer.status == 404
    async with ours.http.get(f"{url}/{digest}") as answer:
        assert answer.status == 200
    async with ours.http.delete(f"{url}/{digest}") as answer:
        assert answer.status == 202
    async with ours.http.get(f"{url}/v2") as answer:
        assert (answer.status, await code(answer)) == (404, "MANIFEST_UNKNOWN")
    async with ours.http.delete(f"{url}/{digest}") as answer:
        assert answer.status == 404


async def test_deleting_a_blob(ours):
    digest = await ours.put_blob("app", b"gone")
    url = f"{ours.url}/v2/app/blobs/{digest}"
    async with ours.http.delete(url) as answer:
        assert answer.status == 202
    async with ours.http.get(url) as answer:
        assert answer.status == 404
    async with ours.http.delete(url) as answer:
        assert answer.status == 404


async def test_referrers_of_a_subject_that_need_not_exist(ours):
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"later"), "size": 5}
    signature = await ours.put_image(
        "app", None, subject=subject, artifactType="application/x.signature", annotations={"by": "me"}
    )
    other = await ours.put_image("app", None, b"other", subject=subject)
    url = f"{ours.url}/v2/app/referrers/{subject['digest']}"
    async with ours.http.get(url) as answer:
        assert answer.headers["Content-Type"] == OCI_INDEX
        found = (await answer.json())["manifests"]
    assert {entry["digest"] for entry in found} == {signature, other}
    async with ours.http.get(url + "?artifactType=application/x.signature") as answer:
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        (entry,) = (await answer.json())["manifests"]
    assert entry["digest"] == signature
    assert entry["annotations"] == {"by": "me"}
    async with ours.http.delete(f"{ours.url}/v2/app/manifests/{signature}"):
        pass
    async with ours.http.get(url) as answer:
        assert [e["digest"] for e in (await answer.json())["manifests"]] == [other]
    async with ours.http.get(f"{ours.url}/v2/nobody/referrers/{digest_of(b'')}") as answer:
        assert (answer.status, (await answer.json())["manifests"]) == (200, [])


async def test_an_index_needs_its_manifests(ours):
    image = await ours.put_image("app", None)
    async with ours.http.get(f"{ours.url}/v2/app/manifests/{image}") as answer:
        size = len(await answer.read())
    entry = {"mediaType": OCI_MANIFEST, "digest": image, "size": size}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    await ours.put_manifest("app", "multi", index)
    index["manifests"] = [{**entry, "digest": digest_of(b"")}]
    async with ours.http.put(
        f"{ours.url}/v2/app/manifests/bad", data=json.dumps(index), headers={"Content-Type": OCI_INDEX}
    ) as answer:
        assert await code(answer) == "MANIFEST_BLOB_UNKNOWN"


async def test_metrics_tell_routes_and_bytes(ours):
    await ours.put_image("app", "v1", b"x" * 1000)
    async with ours.http.get(ours.url + "/metrics") as answer:
        text = await answer.text()
    assert 'shipway_registry_requests_total{method="PUT",route="manifest",status="201"} 1.0' in text
    assert 'shipway_registry_bytes_total{direction="in"}' in text
    assert "shipway_registry_repositories 1.0" in text


async def test_two_registries_never_share_a_folder(tmp_path: Path):
    runner, _ = await start(make_app(tmp_path), "127.0.0.1", 0)
    with pytest.raises(Conflict, match="in use by another registry"):
        make_app(tmp_path)
    await runner.cleanup()


async def test_a_broken_upload_can_be_resumed(ours):
    """The connection breaks in the middle of a PATCH: what arrived counts."""
    data = os.urandom(4_000_000)

    async def half():
        yield data[:2_500_000]
        raise OSError("cable pulled")

    async with ours.http.post(ours.url + "/v2/app/blobs/uploads/") as answer:
        location = ours.url + answer.headers["Location"]
    with pytest.raises(OSError, match="Can not write request body"):
        await ours.http.patch(location, data=half())
    while True:  # the server may still be writing what it had got
        async with ours.http.get(location) as answer:
            received = int(answer.headers["Range"].partition("-")[2]) + 1
        async with ours.http.put(
            f"{location}?digest={digest_of(data)}",
            data=io.BytesIO(data[received:]),
            headers={"Content-Range": f"{received}-{len(data) - 1}"},
        ) as answer:
            if answer.status == 201:
                break
            assert answer.status in (409, 416)
    assert received >= 1 << 20
