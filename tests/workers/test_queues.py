from __future__ import annotations

import pytest

from workers.queues import ANY, QueueError, stage_queue, stage_queues, steps_queue


def test_a_stage_without_labels_goes_to_anyone():
    assert stage_queue({}) == ANY


def test_a_stage_near_an_image_goes_to_its_host():
    assert stage_queue({"role": "web"}, near="alpha") == "host.alpha"


def test_the_order_of_labels_does_not_matter():
    assert stage_queue({"role": "web", "arch": "arm"}) == stage_queue({"arch": "arm", "role": "web"})


def test_a_worker_hears_every_combination_of_its_labels():
    queues = stage_queues("alpha", {"role": "web", "arch": "arm"})
    assert queues[0] == "host.alpha"
    assert queues[-1] == ANY
    for asked in ({"role": "web"}, {"arch": "arm"}, {"role": "web", "arch": "arm"}):
        assert stage_queue(asked) in queues
    assert stage_queue({"role": "db"}) not in queues


def test_host_steps_have_a_queue_of_their_own():
    assert steps_queue("alpha") not in stage_queues("alpha", {"role": "web"})


def test_too_many_labels_are_refused():
    with pytest.raises(QueueError, match="at most 4"):
        stage_queue({f"k{n}": "v" for n in range(5)})
    with pytest.raises(QueueError, match="fewer labels"):
        stage_queues("alpha", {f"k{n}": "v" for n in range(20)})
