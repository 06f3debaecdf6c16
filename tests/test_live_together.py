"""Several devices on one virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitexit.bundle import Bundle
from splitexit.errors import UsageError
from splitexit.live.images import open_images
from splitexit.live.pair import run_pair
from splitexit.live.together import Together
from tests.live_bundle import open_experiment, open_model


def test_they_take_turns_in_the_order_of_time() -> None:
    """Each waits for its own times, and hears of what the world posts to it before that."""
    together, log = Together(2), list[tuple[str, float]]()
    slow = together.devices[0]
    together.world.post(2.5, lambda at_s: slow.post(at_s, lambda now_s: log.append(("heard", now_s))))

    def live(name: str, seat: int, step_s: float, until_s: float) -> None:
        due_s = step_s
        while due_s <= until_s:
            while together.devices[seat].step(due_s):
                pass
            log.append((name, together.devices[seat].now()))
            due_s += step_s

    together.run([lambda: live("slow", 0, 2.0, 4.0), lambda: live("fast", 1, 1.0, 3.0)])
    assert log == [("fast", 1.0), ("slow", 2.0), ("fast", 2.0), ("heard", 2.5), ("fast", 3.0), ("slow", 4.0)]


def test_what_one_raises_is_raised_when_all_have_ended() -> None:
    together, ended = Together(3), list[int]()

    def live(number: int) -> None:
        together.devices[number].step(float(number))
        if number == 1:
            raise ValueError("one of three")
        ended.append(number)

    with pytest.raises(ValueError, match="one of three"):
        together.run([lambda: live(0), lambda: live(1), lambda: live(2)])
    assert ended == [0, 2]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"edge__servers": 2}, "edge.servers"),
        ({"events": [{"at_s": 1.0, "for_s": 2.0, "kind": "edge-down"}]}, "events"),
    ],
)
def test_what_a_process_cannot_be_is_refused(
    live_bundle: Bundle, tmp_path: Path, changes: dict[str, object], key: str
) -> None:
    experiment = open_experiment(live_bundle, tmp_path, **changes)
    with pytest.raises(UsageError, match=f"scenario.yaml: {key}: "):
        run_pair(experiment, "split", 0, open_model(live_bundle), open_images(live_bundle))
