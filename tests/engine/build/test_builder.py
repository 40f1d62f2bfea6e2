from __future__ import annotations

import asyncio
import gzip
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.build import (
    BuildRequest,
    DockerfileError,
    Notice,
    Pulling,
    StepCached,
    StepError,
    StepOutput,
    StepStarted,
)
from engine.errors import InvalidInput, NotFound
from engine.images.descriptor import Platform
from tests.engine.build.conftest import Bench

pytestmark = pytest.mark.kernel


async def test_files_and_configuration(bench: Bench) -> None:
    bench.write(app__main_dot_py="print()", README="read me")
    image = await bench.build(
        """\
FROM scratch
ARG VERSION=1
ENV A=1 B="two $VERSION"
WORKDIR /srv/app
COPY app .
COPY README /docs/
RUN write /made by-hand
USER 1000:1000
EXPOSE 80 53/udp
VOLUME /data
LABEL org.example.a="b c"
ENTRYPOINT ["/main"]
CMD serve $HOME
HEALTHCHECK --interval=5s CMD true
STOPSIGNAL SIGINT
ONBUILD RUN later
""",
        tags=("demo:1", "demo:latest"),
        labels={"extra": "yes"},
    )
    assert bench.files(image) == {
        "srv/": "", "srv/app/": "", "srv/app/main.py": "print()", "docs/": "", "docs/README": "read me",
        "made": "by-hand",
    }  # fmt: skip
    config = image.config.config
    assert config.env[1:] == ("A=1", "B=two 1")
    assert (config.working_dir, config.user, config.stop_signal) == ("/srv/app", "1000:1000", "SIGINT")
    assert config.exposed_ports == {"53/udp": {}, "80/tcp": {}}
    assert config.volumes == {"/data": {}}
    assert config.labels == {"org.example.a": "b c", "extra": "yes"}
    assert (config.entrypoint, config.cmd) == (("/main",), ("/bin/sh", "-c", "serve $HOME"))
    assert config.healthcheck is not None
    assert (config.healthcheck.test, config.healthcheck.interval) == (("CMD-SHELL", "true"), 5_000_000_000)
    assert config.on_build == ("RUN later",)
    assert sorted(image.tags) == ["demo:1", "demo:latest"]
    assert [(entry.created_by, entry.empty_layer) for entry in image.config.history][:7] == [
        ("ARG VERSION=1", True),
        ("ENV A=1 B=two 1", True),
        ("WORKDIR /srv/app", False),
        ("COPY app .", False),
        ("COPY README /docs/", False),
        ("RUN |1 VERSION=1 /bin/sh -c write /made by-hand", False),
        ("USER 1000:1000", True),
    ]
    assert len(image.config.rootfs.diff_ids) == 4
    (step,) = bench.runner.steps
    assert step.args == ("/bin/sh", "-c", "write /made by-hand")
    assert step.working_dir == "/srv/app"
    assert set(step.env[1:]) == {"A=1", "B=two 1", "VERSION=1"}


async def test_the_same_again_is_cached_and_gives_the_same_image(bench: Bench) -> None:
    bench.write(a="1")
    text = "FROM scratch\nCOPY a /\nENV X=y\nRUN write /b b\nLABEL l=1\n"
    first = await bench.build(text)
    (bench.context / "a").touch()
    second = await bench.build(text)
    assert second.id == first.id
    assert bench.runner.steps == []
    assert [event.number for event in bench.events if isinstance(event, StepCached)] == [2, 3, 4, 5]
    third = await bench.build(text, no_cache=True)
    assert len(bench.runner.steps) == 1
    assert third.id != first.id


async def test_what_a_step_reads_decides(bench: Bench) -> None:
    bench.write(a="1", other="x")
    text = "FROM scratch\nCOPY a /\nRUN write /b b\n"
    await bench.build(text)
    bench.write(other="changed")
    await bench.build(text)
    assert bench.runner.steps == []
    bench.write(a="2")
    await bench.build(text)
    assert len(bench.runner.steps) == 1
    await bench.build("FROM scratch\nCOPY a /\nLABEL x=1\nEXPOSE 80\nCMD x\nRUN write /b b\n")
    assert bench.runner.steps == [], "configuration that a command can't see is none of its business"
    await bench.build("FROM scratch\nCOPY a /\nENV x=1\nRUN write /b b\n")
    assert len(bench.runner.steps) == 1
    await bench.build("FROM scratch\nARG v\nCOPY a /\nRUN write /b b\n", build_args={"v": "1"})
    assert len(bench.runner.steps) == 1
    await bench.build("FROM scratch\nCOPY a /\nRUN write /b b\n", build_args={"http_proxy": "http://proxy:1"})
    assert bench.runner.steps == [], "a proxy changes nothing about the work"


async def test_stages(bench: Bench) -> None:
    bench.write(src="S")
    image = await bench.build(
        """\
ARG NAME=tool
FROM scratch AS build
ARG NAME
COPY src /
RUN write /out/$NAME made
FROM scratch AS unneeded
RUN fail 1
FROM scratch
COPY --from=build /out /bin
COPY --from=0 /src /from-number
"""
    )
    assert bench.files(image) == {"bin/": "", "bin/$NAME": "made", "from-number": "S"}
    assert len(bench.runner.steps) == 1
    await bench.build(
        "FROM scratch AS build\nARG NAME=tool\nCOPY src /\nRUN write /out/$NAME made\n"
        "FROM scratch\nCOPY --from=build /out /bin\n"
    )
    assert bench.runner.steps == []


async def test_independent_stages_run_at_the_same_time(bench: Bench) -> None:
    running: set[str] = set()
    together = asyncio.Event()

    async def meet(step: object) -> None:
        running.add(str(step))
        if len(running) == 2:
            together.set()
        await asyncio.wait_for(together.wait(), 10)

    bench.runner.hooks["meet"] = meet
    await bench.build(
        "FROM scratch AS a\nRUN meet a\nFROM scratch AS b\nRUN meet b\n"
        "FROM scratch\nCOPY --from=a . /\nCOPY --from=b . /\n"
    )
    assert together.is_set()


async def test_a_stage_inherits_files_configuration_and_args(bench: Bench) -> None:
    bench.write(a="A")
    image = await bench.build(
        'FROM scratch AS one\nARG v=1\nENV e=2\nCOPY a /\nCMD ["x"]\nFROM one\nRUN write /b ${v}\nENTRYPOINT ["y"]\n'
    )
    assert set(bench.files(image)) == {"a", "b"}
    assert "v=1" in bench.runner.steps[0].env
    assert image.config.config.cmd is None, "an entrypoint of its own takes the base's arguments away"


async def test_base_image_and_triggers(bench: Bench) -> None:
    bench.write(a="A", app="APP")
    base = await bench.build(
        "FROM scratch\nCOPY a /\nENV P=1\nONBUILD COPY app /app\nONBUILD RUN write /t ${P}\n", tags=("base",)
    )
    assert "app" not in bench.files(base)
    image = await bench.build("FROM base\nLABEL x=y\n")
    assert bench.files(image) == {"a": "A", "app": "APP", "t": "${P}"}
    assert image.config.config.on_build == ()
    assert "P=1" in image.config.config.env
    assert image.config.rootfs.diff_ids[0] == base.config.rootfs.diff_ids[0]
    copied = await bench.build("FROM scratch\nCOPY --from=base /a /from-image\n")
    assert bench.files(copied) == {"from-image": "A"}


async def test_target_and_skipped_files(bench: Bench) -> None:
    bench.write(keep="k", drop="d", _dot_dockerignore="drop\nDockerfile\n")
    image = await bench.build("FROM scratch AS all\nCOPY . /\nFROM scratch AS next\nRUN fail 1\n", target="all")
    assert bench.files(image) == {".dockerignore": "drop\nDockerfile\n", "keep": "k"}
    with pytest.raises(InvalidInput, match=r'target stage "al" could not be found \(did you mean all\?\)'):
        await bench.build("FROM scratch AS all\nCOPY . /\n", target="al")
    bench.write(Dockerfile_dot_dockerignore="keep\n*ignore\nDockerfile")
    assert bench.files(await bench.build("FROM scratch\nCOPY . /\n")) == {"drop": "d"}


async def test_heredocs(bench: Bench) -> None:
    image = await bench.build(
        """\
FROM scratch
ENV who=me
COPY <<one <<"two" /d/
hello $who
one
$who
two
RUN <<EOF
write /x multi
EOF
RUN <<EOF
#!/usr/bin/thing
body
EOF
"""
    )
    assert bench.files(image) == {"d/": "", "d/one": "hello me\n", "d/two": "$who\n", "x": "multi\n"[:-1]}
    plain, script = bench.runner.steps
    assert plain.args == ("/bin/sh", "-c", "write /x multi\n")
    assert script.args == ("/bin/sh", "-c", "/dev/pipes/EOF")
    assert script.mounts[-1].target == "/dev/pipes/EOF"


async def test_mounts(bench: Bench) -> None:
    bench.write(src__a="A", _dot_dockerignore="src/hidden", src__hidden="h")
    seen: dict[str, object] = {}

    def look(step: object) -> None:
        for mount in step.mounts:  # type: ignore[attr-defined]
            if mount.layers:
                seen[mount.target] = sorted(path.name for layer in mount.layers for path in layer.iterdir())
            elif mount.source is None:
                seen[mount.target] = (mount.size, mount.read_only)
            elif mount.source.is_dir():
                seen[mount.target] = sorted(path.name for path in mount.source.iterdir())
            else:
                seen[mount.target] = (mount.source.read_text(), oct(mount.source.stat().st_mode & 0o777))
        seen["lower"] = sorted(
            str(path.relative_to(bench.runner.lowers[-1][-1]))
            for path in bench.runner.lowers[-1][-1].rglob("*")
            if not path.is_dir()
        )

    bench.runner.hooks["look"] = look
    await bench.build(
        """\
FROM scratch AS other
COPY src/a /x/y
FROM scratch
WORKDIR /w
RUN --mount=target=/ctx,source=src --mount=from=other,source=/x,target=rel,rw \\
    --mount=type=cache,target=/cache,id=c --mount=type=tmpfs,target=/t,size=1m \\
    --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN look
""",
        secrets={"token": b"s3cret"},
    )
    assert seen["/ctx"] == ["a"]
    assert seen["/w/rel"] == ["y"]
    assert seen["/cache"] == []
    assert seen["/t"] == (1 << 20, False)
    assert seen["/run/secrets/token"] == ("s3cret", "0o400")
    assert "TOKEN=s3cret" in bench.runner.steps[0].env
    assert seen["lower"] == ["etc/hostname", "etc/hosts", "etc/resolv.conf", "run/secrets/token"]


async def test_a_secret_is_nowhere(bench: Bench, tmp_path: Path) -> None:
    marker = "m4rk3r-of-a-secret"
    image = await bench.build("FROM scratch\nRUN --mount=type=secret,id=k write /f x\n", secrets={"k": marker.encode()})
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or marker.encode() not in path.read_bytes(), path
    assert marker not in repr(bench.events) + repr(image.config)


async def test_cache_mounts_stay_between_builds(bench: Bench) -> None:
    found: list[list[str]] = []

    def use(step: object) -> None:
        (mount,) = step.mounts  # type: ignore[attr-defined]
        found.append(sorted(path.name for path in mount.source.iterdir()))
        (mount.source / f"f{len(found)}").touch()

    bench.runner.hooks["use"] = use
    text = "FROM scratch\nRUN --mount=type=cache,target=/c use\n"
    await bench.build(text)
    await bench.build(text, no_cache=True)
    assert found == [[], ["f1"]]


async def test_epoch_makes_images_repeat(bench: Bench) -> None:
    bench.write(a="A")
    text = 'FROM scratch\nWORKDIR /w\nCOPY a /d/\nRUN write /b x\nCMD ["x"]\n'
    ids = {
        (await bench.build(text, no_cache=True, build_args={"SOURCE_DATE_EPOCH": "1000000000"})).id for _ in range(2)
    }
    assert len(ids) == 1
    stamp = datetime.fromtimestamp(1_000_000_000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert bench.images.get(ids.pop()).created == stamp
    base = await bench.build(text, no_cache=True, tags=("young",))
    image = await bench.build("FROM young\nLABEL a=b\n", build_args={"SOURCE_DATE_EPOCH": "1000000000"})
    assert image.created == stamp
    assert image.config.history[0] == base.config.history[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM scratch\nRUN fail 3\n", "Dockerfile:2: RUN: The command '/bin/sh -c fail 3' returned a non-zero code"),
        ("FROM scratch\n\nCOPY nothing /x\n", 'Dockerfile:3: COPY: "nothing": file not found in build context'),
        ("FROM scratch\nCOPY --chown=nobody Dockerfile /\n", "Dockerfile:2: COPY: no such user: nobody"),
        ("FROM scratch\nADD --chmod=99 a /\n", "on line 2: ADD: invalid chmod parameter"),
        ("FROM scratch\nCOPY a b /c\n", "on line 2: When using COPY with more than one source file"),
        ("FROM ${nope}\n", "on line 1: FROM: base name (${nope}) should not be blank"),
        ("ARG BASE=x\nFROM ${BSE}\n", "(did you mean BASE?)"),
        ("FROM missing\n", "Dockerfile:1: FROM missing: pull access denied for missing"),
        (
            "FROM scratch AS made\nFROM scratch\nCOPY --from=mdae a /\n",
            "Dockerfile:3: COPY --from=mdae (did you mean made?): pull access denied for mdae",
        ),
        ("FROM scratch\nCOPY --from=1 a /\n", "on line 2: COPY: invalid stage index 1"),
        ("FROM scratch\nCOPY --from=b a /\nFROM scratch AS b\n", "it needs to be defined before"),
        ("FROM scratch AS b\nCOPY --from=b a /\n", "circular dependency"),
        ("FROM scratch AS b\nCOPY --from=b a /\nFROM scratch\n", "on line 2: COPY: circular dependency"),
        ("FROM scratch\nCOPY --from=$A a /\n", "variable expansion is not supported for --from"),
        ("FROM base:[1] AS b\nFROM scratch\n", 'on line 1: FROM: failed to parse stage name "base:[1]"'),
        ("FROM scratch\nRUN --device=gpu,required x\n", "device gpu is required"),
        ("FROM scratch\nADD --checksum=x http://a/b /c\n", "on line 2: ADD: invalid checksum x"),
        ("FROM scratch\nEXPOSE 99999\n", "on line 2: EXPOSE: invalid containerPort: 99999"),
        ("FROM scratch\nSTOPSIGNAL SIGNOPE\n", "on line 2: STOPSIGNAL: invalid signal: SIGNOPE"),
        ("FROM scratch\nENV a=\"${x:?must be set}\"\n", "on line 2: ENV: failed to process"),
        ("FROM scratch\nRUN --mount=type=secret,id=x,required y\n", "Dockerfile:2: RUN: secret x: not found"),
        ("FROM scratch\nRUN --security=insecure y\n", "Dockerfile:2: RUN: --security=insecure is not allowed"),
    ],
)  # fmt: skip
async def test_failures_name_line_and_instruction(bench: Bench, text: str, message: str) -> None:
    with pytest.raises((DockerfileError, StepError, NotFound)) as failed:
        await bench.build(text, target=str(text.count("FROM ") - 1) if "AS b" not in text else "0")
    assert message in str(failed.value)
    assert "\n" not in str(failed.value)


async def test_an_image_of_another_platform_is_used_with_a_word_or_not_at_all(bench: Bench) -> None:
    await bench.build("FROM scratch\nRUN write /x y\n", tags=("other:1",), platform="linux/s390x")
    await bench.build("FROM other:1\n")
    assert bench.pulls == []
    (notice,) = [event.text for event in bench.events if isinstance(event, Notice)]
    assert notice == (
        'InvalidBaseImagePlatform: Base image other:1 was pulled with platform "linux/s390x", expected '
        f'"{Platform.host()}" for current build'
    )
    for text in ("FROM other:1\n", "FROM scratch\nCOPY --from=other:1 /x /\n"):
        with pytest.raises(NotFound):
            await bench.build(text, platform="linux/riscv64")
        assert bench.pulls.pop() == "other:1"
        await bench.build(text, platform="linux/s390x")
    assert bench.pulls == []


async def test_one_failing_stage_stops_the_others(bench: Bench) -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def hang(step: object) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    bench.runner.hooks["hang"] = hang
    bench.runner.hooks["fail"] = lambda step: started.wait()
    with pytest.raises(StepError, match="non-zero code: 1"):
        await bench.build(
            "FROM scratch AS a\nRUN hang\nFROM scratch AS b\nRUN fail 1\n"
            "FROM scratch\nCOPY --from=a x /\nCOPY --from=b x /\n"
        )
    assert cancelled.is_set()


async def test_cancelling_leaves_nothing(bench: Bench) -> None:
    started = asyncio.Event()

    async def hang(step: object) -> None:
        started.set()
        await asyncio.Event().wait()

    bench.runner.hooks["hang"] = hang
    task = asyncio.create_task(bench.build("FROM scratch\nRUN hang\n", tags=("x",)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.images.list(all=True) == []


async def test_the_same_step_in_two_builds_runs_once(bench: Bench) -> None:
    request = BuildRequest(dockerfile_content=b"FROM scratch\nRUN write /a b\n")
    first, second = await asyncio.gather(
        *(bench.builder.build(request, bench.pull, bench.events.append) for _ in range(2))
    )
    assert first.id == second.id
    assert len(bench.runner.steps) == 1


async def test_progress(bench: Bench) -> None:
    await bench.build("FROM scratch\nARG a\nRUN say hello\n", build_args={"typo": "1", "a": "2"})
    assert [(event.number, event.total, event.text) for event in bench.events if isinstance(event, StepStarted)] == [
        (1, 3, "FROM scratch"),
        (2, 3, "ARG a"),
        (3, 3, "RUN say hello"),
    ]
    assert [event.data for event in bench.events if isinstance(event, StepOutput)] == [b"ran say hello\n"]
    assert [event.text for event in bench.events if isinstance(event, Notice)] == [
        "build-arg typo was not consumed: no ARG declares it"
    ]
    with pytest.raises(NotFound):
        await bench.build("FROM elsewhere:1\n")
    assert [event.name for event in bench.events if isinstance(event, Pulling)] == ["elsewhere:1"]


async def test_archives_are_unpacked_by_add_alone(bench: Bench) -> None:
    bench.write(x__f="F")
    with tarfile.open(bench.context / "a.tar.gz", "w:gz") as tar:
        info = tar.gettarinfo(bench.context / "x/f", "inner/f")
        info.uid = 7
        with (bench.context / "x/f").open("rb") as content:
            tar.addfile(info, content)
    image = await bench.build("FROM scratch\nADD a.tar.gz /to/\nADD --unpack=false a.tar.gz /raw/\nCOPY x /y\n")
    lower = bench.images.lowerdirs(image.id)
    assert (lower[2] / "to/inner/f").read_text() == "F"
    assert (lower[2] / "to/inner/f").stat().st_uid == 7
    assert (lower[1] / "raw/a.tar.gz").stat().st_size > 0


@pytest.mark.parametrize("base", ["/new/", "/old/"])
async def test_what_is_excluded_is_left_out_of_an_archive_wherever_it_goes(bench: Bench, base: str) -> None:
    bench.write(x__old__f="F")
    with tarfile.open(bench.context / "a.tar", "w") as tar:
        for name in ("a", "b", "d/one", "d/e/two"):
            tar.addfile(tarfile.TarInfo(name))
    image = await bench.build(f"FROM scratch\nCOPY x /\nADD --exclude=a --exclude=d --exclude=!d/e/two a.tar {base}\n")
    added = bench.images.lowerdirs(image.id)[0] / base.strip("/")
    assert sorted(str(path.relative_to(added)) for path in added.rglob("*")) == ["b", "d", "d/e", "d/e/two"]


async def test_an_archive_that_is_a_bomb_is_refused_unread(bench: Bench) -> None:
    bench.write(bomb="")
    info = tarfile.TarInfo("zeros")
    info.size = 2 << 30
    (bench.context / "bomb").write_bytes(gzip.compress(info.tobuf() + bytes(100_000)))
    with pytest.raises(StepError, match="Dockerfile:2: ADD: the archive has more than 1073741824 bytes"):
        await bench.build("FROM scratch\nADD bomb /\n")
