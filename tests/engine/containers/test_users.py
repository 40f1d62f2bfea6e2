from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.layered import Layered
from engine.containers.users import ResolvedUser, resolve, resolve_in
from engine.errors import InvalidInput

PASSWD = b"""\
# a comment
root:x:0:0:root:/root:/bin/sh
alice:x:1000:1001:Alice:/home/alice:/bin/sh
1000:x:7:8:called like a number:/seven:/bin/sh
broken:x
huge:x:4294967295:0::/:/bin/sh
negative:x:-1:0::/:/bin/sh
+::::::
homeless:x:9:9:::/bin/sh
"""
GROUP = b"root:x:0:\nwheel:x:10:alice,bob\nmany:x:11:bob,alice\nusers:x:1001:\nshort:x:12\nhuge:x:4294967295:alice\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", ResolvedUser(0, 0, (0,), "/root", "root")),
        ("alice", ResolvedUser(1000, 1001, (1001, 10, 11), "/home/alice", "alice")),
        ("alice:users", ResolvedUser(1000, 1001, (1001,), "/home/alice", "alice")),
        ("alice:5", ResolvedUser(1000, 5, (5,), "/home/alice", "alice")),
        ("0:wheel", ResolvedUser(0, 10, (10,), "/root", "root")),
        ("1000", ResolvedUser(1000, 1001, (1001, 10, 11), "/home/alice", "alice")),
        ("12345", ResolvedUser(12345, 0, (0,), "/", "")),
        ("12345:6", ResolvedUser(12345, 6, (6,), "/", "")),
        ("homeless", ResolvedUser(9, 9, (9,), "/", "homeless")),
        (":wheel", ResolvedUser(0, 10, (10,), "/root", "root")),
    ],
)
def test_users_are_found_as_runc_finds_them(user: str, expected: ResolvedUser) -> None:
    assert resolve_in(user, (), PASSWD, GROUP) == expected


@pytest.mark.parametrize("user", ["bob", "broken", "-1", "alice:nobody", "root:-1", "2147483648", "1e3", "9" * 40])
def test_who_is_not_there_is_named(user: str) -> None:
    with pytest.raises(InvalidInput, match=r"find|range"):
        resolve_in(user, (), PASSWD, GROUP)


def test_added_groups_come_after_the_users_own_and_once() -> None:
    assert resolve_in("alice", ("77", "wheel", "users"), PASSWD, GROUP).groups == (1001, 10, 11, 77)
    with pytest.raises(InvalidInput, match="nogroup"):
        resolve_in("alice", ("nogroup",), PASSWD, GROUP)


@given(st.text(max_size=20), st.binary(max_size=300), st.binary(max_size=300))
def test_no_file_breaks_the_parser(user: str, passwd: bytes, group: bytes) -> None:
    try:
        found = resolve_in(user, (), passwd, group)
    except InvalidInput as error:
        assert "\n" not in str(error)  # noqa: PT017 - a refusal is as good an answer, of one line
    else:
        assert all(0 <= number < 2**31 for number in (found.uid, found.gid, *found.groups))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "image/etc").mkdir(parents=True)
    return tmp_path / "image"


@pytest.mark.parametrize(
    "aim", ["/etc/passwd", "../../../../../../../../etc/passwd", "passwd", "/proc/self/root/etc/passwd"]
)
def test_links_lead_to_no_file_of_the_host(image: Path, aim: str) -> None:
    (image / "etc/passwd").symlink_to(aim)
    assert resolve("0", (), Layered([image])).home == "/"


def test_links_inside_of_the_image_are_followed(image: Path) -> None:
    (image / "usr").mkdir()
    (image / "usr/passwd").write_bytes(PASSWD)
    (image / "etc/passwd").symlink_to("/usr/../usr/passwd")
    assert resolve("alice", (), Layered([image])).uid == 1000


def test_what_is_no_file_is_no_passwd_file(image: Path) -> None:
    os.mkfifo(image / "etc/passwd")
    (image / "etc/group").mkdir()
    assert resolve("5:6", (), Layered([image])) == ResolvedUser(5, 6, (6,))


def test_of_a_huge_file_only_the_beginning_is_read(image: Path) -> None:
    with (image / "etc/passwd").open("wb") as file:
        file.write(PASSWD)
        file.truncate(1 << 40)
    assert resolve("alice", (), Layered([image])).uid == 1000


def test_layers_hide_what_is_below_them(tmp_path: Path) -> None:
    lower, middle, upper = (tmp_path / name for name in ("lower", "middle", "upper"))
    for layer in (lower, middle, upper):
        (layer / "etc").mkdir(parents=True)
    (lower / "etc/passwd").write_text("old:x:1:1::/:\n")
    (middle / "etc/passwd").write_text("new:x:2:2::/:\n")
    layers = Layered([upper, middle, lower])
    assert resolve("new", (), layers).uid == 2
    if os.geteuid() == 0:
        os.mknod(upper / "etc/passwd", 0o020000, os.makedev(0, 0))
        assert layers.read("/etc/passwd") is None
        (upper / "etc/passwd").unlink()
        (middle / "etc/passwd").unlink()
        os.setxattr(middle / "etc", "trusted.overlay.opaque", b"y")
        assert layers.read("/etc/passwd") is None
