from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.build import instructions as i
from engine.build.interpret import read_dockerfile
from engine.build.parser import Heredoc, parse
from engine.build.problems import DockerfileError


def test_continuation_comments_and_blank_lines() -> None:
    syntax = parse(b"FROM a\nRUN one \\\n  # between\n\n  two \\  \n three\n# about four\nRUN four\n")
    run, four = syntax.nodes[1:]
    assert run.args == ("one   two  three",)
    assert (run.start, run.end) == (2, 6)
    assert four.comments == ("about four",)
    assert syntax.warnings == ("line 6: empty continuation line in: RUN one   two  three",)


def test_an_escaped_escape_continues_nothing() -> None:
    assert [node.args for node in parse(b"FROM a\nRUN x \\\\\nRUN y").nodes[1:]] == [("x \\\\",), ("y",)]


def test_escape_directive() -> None:
    syntax = parse(b"# escape = `\nFROM a\nRUN dir c:\\ `\n  /b\nENV A=`$x")
    assert syntax.escape == "`"
    assert syntax.nodes[1].args == ("dir c:\\   /b",)


def test_directives_end_with_the_first_other_line() -> None:
    syntax = parse(b"# syntax=docker/dockerfile:1\n# check=skip=all\n# hello\n# escape=`\nFROM a\n")
    assert [(d.name, d.value, d.line) for d in syntax.directives] == [
        ("syntax", "docker/dockerfile:1", 1),
        ("check", "skip=all", 2),
    ]
    assert syntax.escape == "\\"


@pytest.mark.parametrize("source", [b"# escape=`\n# escape=`\nFROM a", b"# escape=x\nFROM a"])
def test_wrong_directives(source: bytes) -> None:
    with pytest.raises(DockerfileError, match=r"parser directive|invalid escape token"):
        parse(source)


def test_byte_order_mark_carriage_returns_and_odd_bytes() -> None:
    syntax = parse(b"\xef\xbb\xbf# escape=`\r\nFROM a\r\nRUN \xff`\r\n x\r\n")
    assert syntax.escape == "`"
    assert syntax.nodes[1].args == ("\udcff x",)


def test_only_plain_blanks_end_a_flag() -> None:
    copy = parse("FROM a\nCOPY --from=b\u00a0c --chown=\u00e0 x y".encode()).nodes[1]
    assert copy.flags == ("--from=b\u00a0c", "--chown=\u00e0")
    assert copy.args == ("x", "y")


def test_heredocs() -> None:
    source = b"""FROM a
RUN <<-one cat <<"two" >x
\ta $b
\tone
b
two
COPY <<a <<'b' /to/
first
a
second
b
RUN ["x", "<<no"]
ONBUILD RUN <<E
in
E
"""
    run, copy, plain, trigger = parse(source).nodes[1:]
    assert run.heredocs == (
        Heredoc("one", expand=True, strip_tabs=True, body="\ta $b\n"),
        Heredoc("two", expand=False, strip_tabs=False, body="b\n"),
    )
    assert (run.start, run.end) == (2, 6)
    assert [heredoc.body for heredoc in copy.heredocs] == ["first\n", "second\n"]
    assert plain.heredocs == ()
    assert trigger.heredocs[0].body == "in\n"
    meaning = read_dockerfile(source).stages[0].steps
    assert isinstance(meaning[3], i.OnBuild)
    assert meaning[3].expression == "RUN <<E\nin\nE"


def test_unterminated_heredoc_names_its_line() -> None:
    with pytest.raises(DockerfileError) as refused:
        parse(b"FROM a\nRUN <<EOF\nx\n")
    assert str(refused.value) == ("dockerfile parse error on line 2: RUN: unterminated heredoc: no line EOF ends it")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "dockerfile parse error: file with no instructions"),
        (b"FROM a\nCPOY a b", "on line 2: unknown instruction: CPOY (did you mean COPY?)"),
        (b"from a\nrum x", "on line 2: unknown instruction: rum (did you mean run?)"),
        (b"FROM a\nCOPY --form=b c d", "on line 2: COPY: unknown flag: --form (did you mean from?)"),
        (b"FROM a\n\nCOPY --link=maybe c d", "COPY: expecting boolean value for flag --link, not: maybe"),
        (b"FROM a\nCOPY --from=a --from=b c d", "duplicate flag specified: --from"),
        (b"FROM a\nCOPY a", "COPY requires at least two arguments"),
        (b"FROM a\nCOPY a <<b\nb", "COPY cannot accept a heredoc as a destination"),
        (b"FROM a AS 1x", "invalid name for build stage"),
        (b"FROM a b", "FROM requires either one or three arguments"),
        (b"RUN x\nFROM a", "line 1: RUN: no build stage in current context"),
        (b"FROM a\nENV x", "ENV must have two arguments"),
        (b"FROM a\nENV a=b c", 'can\'t find = in "c"'),
        (b"FROM a\nENV =b", "ENV names can not be blank"),
        (b"FROM a\nARG", "ARG requires at least one argument"),
        (b"FROM a\nCMD [1]", "arrays must be comprised of strings only"),
        (b"FROM a\nSHELL sh -c", "SHELL requires the arguments to be in JSON form"),
        (b"FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        (b"FROM a\nONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        (b"FROM a\nHEALTHCHECK CMND x", 'Unknown type "CMND" in HEALTHCHECK (try CMD)'),
        (b"FROM a\nHEALTHCHECK --interval=1 CMD x", "invalid duration"),
        (b"FROM a\nHEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        (b"FROM a\nHEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        (b"FROM a\nRUN --network=hots x", 'invalid network mode "hots" (did you mean host?)'),
        (b"FROM a\nRUN --mount=type=bind,from=$x y", "'from' doesn't support variable expansion"),
        (b'FROM a\nVOLUME [""]', "VOLUME specified can not be an empty string"),
        (b"FROM a\nRUN " + b"x" * 70_000, "dockerfile line greater than max allowed size of 65535"),
    ],
)  # fmt: skip
def test_refusals_name_the_line_and_the_instruction(source: bytes, message: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        read_dockerfile(source)
    assert message in str(refused.value)


def test_meanings() -> None:
    (stage,) = read_dockerfile(
        b"""ARG BASE=x
FROM --platform=$TARGETPLATFORM ${BASE} AS Final
ARG a b=1 c=
ENV one two  three
ENV a="b c" d=e\\ f
COPY --from=0 --chown=1:2 --chmod=755 --exclude=*.o --exclude=x --link --parents a b/
ADD --checksum=sha256:1 --keep-git-dir --unpack=false https://x /y
RUN --mount=type=cache,target=/c --network=none --security=insecure ["a", "b"]
HEALTHCHECK --interval=1m30s --retries=3 CMD curl x
EXPOSE 80 53/udp
STOPSIGNAL SIGKILL
"""
    ).stages
    assert (stage.opening.base, stage.name, stage.opening.platform) == ("${BASE}", "final", "$TARGETPLATFORM")
    arg, old, env, copy, add, run, health, expose, stop = stage.steps
    assert arg == i.Arg(3, "ARG a b=1 c=", (i.Declared("a", None), i.Declared("b", "1"), i.Declared("c", "")))
    assert isinstance(old, i.Env)
    assert old.pairs == (i.Pair("one", "two  three", spaced=True),)
    assert isinstance(env, i.Env)
    assert env.pairs == (i.Pair("a", '"b c"'), i.Pair("d", "e\\ f"))
    assert isinstance(copy, i.Copy)
    assert (copy.sources, copy.destination, copy.origin) == (("a",), "b/", "0")
    assert (copy.chown, copy.chmod, copy.excludes) == ("1:2", "755", ("*.o", "x"))
    assert copy.link
    assert copy.parents
    assert isinstance(add, i.Add)
    assert (add.checksum, add.keep_git_dir, add.unpack) == ("sha256:1", True, False)
    assert isinstance(run, i.Run)
    assert run.command == i.CommandLine(("a", "b"), shell=False)
    assert (run.mounts, run.network, run.security) == (("type=cache,target=/c",), "none", "insecure")
    assert isinstance(health, i.Healthcheck)
    assert (health.test, health.interval, health.retries) == (("CMD-SHELL", "curl x"), 90_000_000_000, 3)
    assert isinstance(expose, i.Expose)
    assert expose.ports == ("53/udp", "80")
    assert isinstance(stop, i.StopSignal)
    assert stop.signal == "SIGKILL"


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(source: bytes) -> None:
    with contextlib.suppress(DockerfileError):
        read_dockerfile(source)


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["FROM a", "RUN <<E", "E", "COPY <<-'E' x", 'ENV a="', "LABEL a b", "# escape=`", "ONBUILD ADD <<E /"]
        ),
        st.text(alphabet="FROMUN -=\\`\"'<E[],$#\t", max_size=20),
    ),
    max_size=8,
)  # fmt: skip


@given(LINES)
def test_any_lines_parse_or_are_refused_and_lines_stay_in_order(lines: list[str]) -> None:
    try:
        syntax = parse("\n".join(lines).encode())
    except DockerfileError as error:
        if not 0 <= error.line <= len(lines):
            raise
        return
    ends = [(node.start, node.end) for node in syntax.nodes]
    assert ends == sorted(ends)
    assert all(1 <= start <= end <= len(lines) for start, end in ends)
