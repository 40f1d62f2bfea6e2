"""RUN in real containers: what a step sees, what it leaves, and what becomes of it when nobody wants it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import shutil
import socket
import tarfile
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from engine.build import Builder, BuildEvent, BuildRequest, Notice, StepError, StepOutput
from engine.build.request import ENTITLEMENTS
from engine.build.spool import spool
from engine.config import EngineConfig
from engine.containers import idranges
from engine.containers.ephemeral import run_ephemeral
from engine.containers.idranges import IdRanges
from engine.images.config import ContainerConfig, ImageConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.network import Networks
from engine.runtime.launcher import Launcher
from tests import needs
from tests.engine.build.reference.material import ENV_PATH, make_base

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Engine:
    config: EngineConfig
    builder: Builder
    images: ImageStore
    launcher: Launcher
    context: Path
    events: list[BuildEvent] = field(default_factory=list)

    async def build(self, text: str, **more: object) -> Image:
        self.events.clear()
        request = BuildRequest(context=self.context, dockerfile_content=text.encode(), network="none")
        return await self.builder.build(replace(request, **more), self._pull, self.events.append)  # type: ignore[arg-type]

    async def _pull(self, reference: Reference, platform: object) -> Image:
        raise AssertionError(f"{reference} should be here")

    def said(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, StepOutput)).decode()

    def top_layer(self, image: Image) -> set[str]:
        folder = self.images.lowerdirs(image.id)[0]
        return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    needs.root()
    folder = tmp_path_factory.mktemp("run")
    config = EngineConfig(data_root=folder / "data", exec_root=Path(tempfile.mkdtemp(prefix="sw")), trust_host_ca=True)
    images = ImageStore(config.data_root / "images")
    layer = images.add_layer_from_dir(None, make_base(config.data_root / "base"))
    inner = ContainerConfig(env=(f"PATH={ENV_PATH}",))
    images.create_image(ImageConfig(architecture="amd64", config=inner), [layer], Reference.parse("base"))
    launcher = await Launcher.connect(config.exec_root, config.cgroup_parent)
    networks = Networks(config, config.data_root / "networks")
    ranges = None if await idranges.lack(launcher, config.data_root) else IdRanges(config.instance, lambda: ())
    builder = Builder(config, images, functools.partial(run_ephemeral, launcher, networks, config), ranges=ranges)
    (folder / "context").mkdir()
    (folder / "context/file").write_text("from the context")
    yield Engine(config, builder, images, launcher, folder / "context")
    builder.close()
    await launcher.shutdown()
    images.close()
    shutil.rmtree(config.exec_root)


async def test_a_step_leaves_only_what_it_wrote(engine: Engine) -> None:
    image = await engine.build(
        """\
FROM base
RUN --mount=type=cache,target=/var/cache/deep --mount=type=tmpfs,target=/scratch/here \\
    --mount=target=/ctx --mount=type=secret,id=s --mount=type=secret,id=s,target=/elsewhere/s \\
    cat /run/secrets/s /elsewhere/s && cat /ctx/file && touch /var/cache/deep/x /scratch/here/x && echo x > /made
""",
        secrets={"s": b"hush"},
    )
    assert engine.said() == "hushhushfrom the context"
    assert engine.top_layer(image) == {"made"}


async def test_a_step_that_writes_nothing_has_no_layer(engine: Engine) -> None:
    image = await engine.build("FROM base\nRUN true\n")
    assert len(image.config.rootfs.diff_ids) == 1
    assert image.config.history[-1].empty_layer


async def test_writes_to_bind_mounts_are_lost(engine: Engine) -> None:
    await engine.build("FROM base\nRUN --mount=target=/ctx,rw echo changed > /ctx/file && cat /ctx/file\n")
    assert engine.said() == "changed\n"
    assert (engine.context / "file").read_text() == "from the context"
    with pytest.raises(StepError):
        await engine.build("FROM base\nRUN --mount=target=/ctx echo changed > /ctx/file\n")


_LAYERED = """\
FROM base AS first
RUN mkdir -p /d/e/deep && echo 1 > /d/one && echo 2 > /d/e/two && chmod 0751 /d && chown 7:8 /d
FROM first AS second
RUN rm -r /d/one /d/e && mkdir /d/e && echo 3 > /d/e/three && echo 4 > /d/four && ln -s four /d/link
FROM base
"""


async def test_a_bind_mount_shows_another_stages_layers_and_copies_nothing(engine: Engine) -> None:
    await engine.build(
        f"""{_LAYERED}
RUN --mount=from=second,source=/d,target=/m --mount=from=second,source=/d/link,target=/file \\
    --mount=from=first,target=/whole --mount=from=scratch,target=/none \\
    ls -A /none && ls -ldn /m && find /m /whole/d | sort && cat /file /m/e/three && ! touch /m/x
"""
    )
    shown = engine.said().splitlines()
    assert shown[0].startswith("drwxr-x--x")
    assert shown[0].split()[2:4] == ["7", "8"]
    assert " ".join(shown[1:-1]) == (
        "/m /m/e /m/e/three /m/four /m/link /whole/d /whole/d/e /whole/d/e/deep /whole/d/e/two /whole/d/one 4 3"
    )
    assert shown[-1].endswith("Read-only file system")


@pytest.mark.parametrize("rights", ["", "--security=insecure "])
async def test_what_is_written_to_a_bind_mount_never_gets_into_what_it_shows(engine: Engine, rights: str) -> None:
    await engine.build(
        f"""{_LAYERED}
RUN {rights}--mount=from=second,source=/d,target=/m,rw --mount=from=second,source=/d/four,target=/f,rw \\
    --mount=from=second,source=/d,target=/ro --mount=from=second,source=/d/four,target=/rof \\
    echo x > /f && echo y > /m/four && rm -r /m/e && cat /m/four /f && touch /m && \\
    for each in /ro /rof; do mount -o remount,bind,rw $each; echo z > $each; echo z > $each/four; done; true
RUN --mount=from=second,source=/d,target=/m cat /m/four /m/e/three
""",
        entitlements=ENTITLEMENTS,
        no_cache=True,
    )
    assert engine.said().split()[:2] == ["y", "x"]
    assert engine.said().split()[-2:] == ["4", "3"]


@pytest.mark.parametrize("rights", ["", "--security=insecure "])
async def test_a_device_among_the_files_is_never_read(engine: Engine, rights: str, tmp_path: Path) -> None:
    device = tarfile.TarInfo("device")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    sent = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="w") as tar:
        tar.addfile(device)
    with contextlib.closing(spool([sent.getvalue()], tmp_path)) as context:
        text = f"FROM base\nRUN {rights}--mount=source=device,target=/d,rw test -c /d && ! cat /d\n"
        await engine.build(text, context=context, entitlements=ENTITLEMENTS, no_cache=True)


async def test_a_cache_is_there_the_next_time(engine: Engine) -> None:
    text = "FROM base\nRUN --mount=type=cache,id=kept,target=/c,mode=0711,uid=5 ls -A /c; ls -ldn /c; touch /c/it\n"
    await engine.build(text)
    assert "drwx--x--x" in engine.said()
    assert " 5 " in engine.said()
    await engine.build(text, no_cache=True)
    assert engine.said().startswith("it\n")


async def test_a_cache_that_begins_with_something_else_is_another(engine: Engine) -> None:
    stages = "FROM base AS one\nRUN echo 1 > /one\nFROM base AS two\nRUN echo 2 > /two\nFROM base\n"
    mount = "--mount=type=cache,id=begun,target=/c,from="
    await engine.build(f"{stages}RUN {mount}one cat /c/one && echo x > /c/x\nRUN {mount}two cat /c/two && ! cat /c/x\n")
    await engine.build(f"{stages}RUN {mount}one cat /c/one /c/x\n")
    assert engine.said() == "1\nx\n"


async def test_arguments_of_the_builder_itself(engine: Engine) -> None:
    text = "FROM base\nRUN --mount=type=cache,id=apart,target=/c cat /etc/hostname; touch /c/x; ls /c\n"
    ours = {"BUILDKIT_SANDBOX_HOSTNAME": "box", "BUILDKIT_CACHE_MOUNT_NS": "ns", "BUILDKIT_SYNTAX": "any"}
    await engine.build(text, build_args=ours)
    assert engine.said() == "box\nx\n"
    await engine.build(text.replace("touch /c/x; ", ""))
    assert engine.said() == "buildkitsandbox\n"
    assert not [event for event in engine.events if isinstance(event, Notice)]


async def test_no_path_in_a_cache_leads_out_of_it(engine: Engine) -> None:
    engine.context.joinpath("secret").write_text("of the host")
    await engine.build(f"FROM base\nRUN --mount=type=cache,id=l,target=/c ln -s {engine.context} /c/away\n")
    for source in ("../../../../../../../../etc", "away", "away/etc"):
        await engine.build(f"FROM base\nRUN --mount=type=cache,id=l,source={source},target=/c ls -A /c\n")
        assert engine.said() == ""


async def test_steps_are_root_in_a_user_namespace_alone(engine: Engine) -> None:
    if engine.builder._ranges is None:
        needs.lacking("this kernel can't show layers with other ids")
    image = await engine.build(
        """\
FROM base
RUN mkdir /home && chown 1000:300000 /home && touch /bin/true
RUN cat /proc/self/uid_map && touch /x && chmod 4755 /x && chown 200000 /bin/sh && ls -ldn /home /bin/busybox
USER 250000
RUN --mount=type=secret,id=s,uid=250000 cat /run/secrets/s && id -u
""",
        secrets={"s": b"hush "},
    )
    uid_map, *rest = engine.said().splitlines()
    assert int(uid_map.split()[1]) >= 0x7000_0000
    assert [line.split()[2:4] for line in rest[1:3]] == [["200000", "0"], ["1000", "300000"]]
    assert rest[-1] == "hush 250000"
    folder = engine.images.lowerdirs(image.id)[0]
    assert (folder / "x").stat().st_uid == 0
    assert (folder / "x").stat().st_mode & 0o7777 == 0o4755
    assert (folder / "bin/busybox").stat().st_uid == 200000
    await engine.build("FROM base\nRUN --network=host cat /proc/self/uid_map\n", entitlements=ENTITLEMENTS)
    assert engine.said().split()[1] == "0"
    assert not engine.builder._ranges._lent


async def test_a_script_heredoc_runs_by_itself(engine: Engine) -> None:
    image = await engine.build('FROM base\nRUN <<EOF\n#!/bin/sh\necho "as $0"\nEOF\n')
    assert engine.said() == "as /dev/pipes/EOF\n"
    assert image.config.history[-1].empty_layer


async def test_an_ssh_agent_is_shown(engine: Engine, tmp_path: Path) -> None:
    path = Path(tempfile.mkdtemp(prefix="sw")) / "agent"
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        image = await engine.build("FROM base\nRUN --mount=type=ssh ls -l $SSH_AUTH_SOCK\n", ssh={"default": path})
    shutil.rmtree(path.parent)
    assert engine.said().startswith("srw")
    assert image.config.history[-1].empty_layer
    await engine.build('FROM base\nRUN --mount=type=ssh echo "[$SSH_AUTH_SOCK]"\n')
    assert engine.said() == "[]\n"
    with pytest.raises(StepError, match="ssh agent default: not given to this build"):
        await engine.build("FROM base\nRUN --mount=type=ssh,required true\n")


async def test_the_host_s_authorities_are_trusted_in_the_step_alone(engine: Engine) -> None:
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        needs.lacking("this host has no CA bundle")
    image = await engine.build("FROM base\nRUN grep -c BEGIN $SSL_CERT_FILE > /count; env > /env\n")
    folder = engine.images.lowerdirs(image.id)[0]
    assert int((folder / "count").read_text()) > 0
    assert engine.top_layer(image) == {"count", "env"}
    assert "CERT" not in repr(image.config.config)
    await engine.build("FROM base\nENV SSL_CERT_FILE=/mine\nRUN echo $SSL_CERT_FILE\n")
    assert engine.said() == "/mine\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN exit 7", "Dockerfile:2: RUN: The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        ('RUN ["/no/such"]', "/no/such"),
        ("USER nobody-here\nRUN true", "nobody-here"),
    ],
)
async def test_failing_commands(engine: Engine, text: str, message: str) -> None:
    with pytest.raises(StepError) as failed:
        await engine.build(f"FROM base\n{text}\n")
    assert message in str(failed.value)
    assert "\n" not in str(failed.value)


async def test_output_comes_as_it_is_written(engine: Engine) -> None:
    await engine.build("FROM base\nRUN echo out; echo err >&2\n")
    streams = {event.stream: event.data for event in engine.events if isinstance(event, StepOutput)}
    assert streams == {"stdout": b"out\n", "stderr": b"err\n"}


async def test_cancelling_kills_the_command_and_leaves_nothing(engine: Engine) -> None:
    started = asyncio.Event()
    request = BuildRequest(
        dockerfile_content=b"FROM base\nRUN echo started; while true; do true; done\n", network="none"
    )
    building = asyncio.create_task(
        engine.builder.build(
            request, engine._pull, lambda event: started.set() if isinstance(event, StepOutput) else None
        )
    )
    await asyncio.wait_for(started.wait(), 30)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert await engine.launcher.list() == []
    assert list((engine.config.data_root / "build" / "steps").iterdir()) == []
    assert list((engine.config.exec_root / "steps").iterdir()) == []


async def test_a_locked_cache_is_used_by_one_at_a_time(engine: Engine) -> None:
    step = (
        "RUN --mount=type=cache,id=l,sharing=locked,target=/c "
        "test ! -e /c/busy && touch /c/busy && ls / > /dev/null && rm /c/busy && echo {0} > /{0}\n"
    )
    await engine.build(
        f"FROM base AS a\n{step.format('a')}FROM base AS b\n{step.format('b')}"
        "FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
