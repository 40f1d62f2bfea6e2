from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.triggers.event import ZERO_SHA, Event


def test_branches_and_tags() -> None:
    branch = Event(kind="push", repository="r", ref="refs/heads/feature/x", sha="a" * 40)
    assert (branch.branch, branch.tag) == ("feature/x", "")
    tag = Event(kind="tag", repository="r", ref="refs/tags/v1", sha="a" * 40)
    assert (tag.branch, tag.tag) == ("", "v1")


def test_what_was_made_and_what_was_deleted() -> None:
    event = Event(kind="push", repository="r", before=ZERO_SHA, sha="a" * 40)
    assert (event.created, event.deleted) == (True, False)
    event = Event(kind="push", repository="r", before="a" * 40, sha=ZERO_SHA)
    assert (event.created, event.deleted) == (False, True)


def test_an_event_is_stored_as_it_is() -> None:
    event = Event(kind="push", repository="r", message="\N{SNOWMAN}\n\0", files=("a", "ü"), committed=1.5)
    assert Event.model_validate_json(event.model_dump_json()) == event
    with pytest.raises(ValidationError):
        Event(kind="pull", repository="r")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Event(kind="push", repository="r", surprise=1)  # type: ignore[call-arg]
