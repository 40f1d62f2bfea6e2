"""The worker API as HTTP: what goes out comes in."""

from __future__ import annotations

import inspect

import pytest
from pydantic import ValidationError

from pipeline.errors import Busy, Conflict, LeaseLost, NotFound, PipelineError, SettingsError, SourceError
from pipeline.local import LocalStageClient
from pipeline.protocol import Claim, LogLine, Outcome, Outputs, Renewal, Result, StageClient
from pipeline.wire import CALLS, ERRORS, error_of, kind_of


def test_each_method_is_a_call_and_a_local_client_has_it() -> None:
    names = {name for name, _ in inspect.getmembers(StageClient, inspect.isfunction) if not name.startswith("_")}
    assert set(CALLS) == names
    for name in names:
        theirs = inspect.signature(getattr(StageClient, name))
        assert list(inspect.signature(getattr(LocalStageClient, name)).parameters) == list(theirs.parameters)


def test_arguments_travel() -> None:
    lines = [LogLine(seq=0, time=1.5, text="ü\n\N{SNOWMAN}"), LogLine(seq=1, time=2.0, text="", stream="stderr")]
    call = CALLS["log"]
    assert call.arguments(call.encode(attempt="1.0.1-a", token="t", lines=lines)) == {
        "attempt": "1.0.1-a", "token": "t", "lines": lines,
    }  # fmt: skip
    outcome = Outcome(result=Result.FAILED, error="x", exit_code=3, outputs=Outputs(tags=("a",)), timings={"run": 1.5})
    call = CALLS["finish"]
    assert call.arguments(call.encode(attempt="a", token="t", outcome=outcome))["outcome"] == outcome


def test_results_travel() -> None:
    assert CALLS["claim"].decode(CALLS["claim"].encode_result(None)) is None
    renewal = Renewal(state="ok", expires_in=10.0)
    assert CALLS["renew"].decode(CALLS["renew"].encode_result(renewal)) == renewal
    with pytest.raises(ValidationError):
        CALLS["claim"].decode(b'{"attempt": 1}')


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"attempt": "a"}', b'{"attempt": "a", "worker": "w", "more": 1}']
)
def test_what_is_no_call_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError):
        CALLS["claim"].arguments(body)


@pytest.mark.parametrize("kind", [NotFound, Conflict, LeaseLost, SourceError, SettingsError, Busy])
def test_errors_travel(kind: type[PipelineError]) -> None:
    word, status = kind_of(kind("why"))
    again = error_of({"error": "why", "kind": word}, status)
    assert type(again) is kind
    assert str(again) == "why"
    assert ERRORS[word] == (kind, status)


def test_answers_of_something_else() -> None:
    assert type(error_of("<html>", 502)) is Busy
    assert type(error_of({"detail": "x"}, 404)) is PipelineError
    assert str(error_of(None, 404)) == "the server answered 404"
    assert kind_of(PipelineError("x")) == ("error", 400)


def test_a_claim_s_token_is_not_shown() -> None:
    assert "repr=False" in str(Claim.model_fields["token"]) or Claim.model_fields["token"].repr is False
