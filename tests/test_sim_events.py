"""What goes wrong while a scenario runs, and what devices make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit.decision import Observation, Plan, Truth
from splitexit.policies.oracle import Oracle
from splitexit.results import CLOUD, EDGE, FALLBACK, column, to_table
from splitexit.sim import simulate
from tests import scripted, synthetic
from tests.scripted import DOWN_DELAY_S, DOWN_S, HEAD_S, STAGE_S, near, rows_of, send_s, serve_s, up_s

JPEG = (0, "jpeg")
THERE_S = send_s(JPEG) + up_s(JPEG)
"""From an arrival to the edge's door."""


def down(at_s: float, for_s: float | None = None, server: int | None = None) -> dict[str, Any]:
    """An edge-down event."""
    given = {"at_s": at_s, "for_s": for_s, "server": server}
    return {"kind": "edge-down"} | {key: value for key, value in given.items() if value is not None}


class TestServersDown:
    """One device per request, so that none waits for another on the link."""

    def test_only_while_it_is_down(self, tmp_path: Path) -> None:
        """From 1 s to before 2 s, at the door."""
        doors = [0.5, 0.999, 1.001, 1.5, 1.999, 2.001]
        experiment = scripted.scripted(tmp_path, [[at_s - THERE_S] for at_s in doors], events=[down(1.0, 1.0)])
        rows = rows_of(experiment, "jpeg@0")
        # what came at 0.999 is served when the server fails
        assert [row.lost_reply for row in rows] == [False, True, True, True, True, False]
        assert rows[1].network_s == near(up_s(JPEG) + 0.001 + DOWN_DELAY_S)
        for row in rows[2:5]:
            assert row.network_s == near(up_s(JPEG) + DOWN_DELAY_S)
            assert row.response_s == near(THERE_S + DOWN_DELAY_S + STAGE_S[0] + HEAD_S[0])
        assert rows[5].response_s == near(THERE_S + serve_s(JPEG) + DOWN_S)

    def test_for_good(self, tmp_path: Path) -> None:
        rows = rows_of(scripted.scripted(tmp_path, [[0.0], [5.0], [500.0]], events=[down(3.0)]), "jpeg@0")
        assert [row.answered_by for row in rows] == [EDGE, FALLBACK, FALLBACK]

    def test_one_after_the_other_without_a_gap(self, tmp_path: Path) -> None:
        """The end of the first is the beginning of the second."""
        events = [down(1.0, 1.0), down(2.0, 1.0)]
        doors = [1.5, 2.0, 2.5, 3.0001]
        experiment = scripted.scripted(tmp_path, [[at_s - THERE_S] for at_s in doors], events=events)
        assert [row.lost_reply for row in rows_of(experiment, "jpeg@0")] == [True, True, True, False]

    @pytest.mark.parametrize("balancer", ["round-robin", "least-loaded"])
    def test_balancers_go_round_a_server_that_is_down(self, tmp_path: Path, balancer: str) -> None:
        """Server 0 is down, so that three at once queue at the other."""
        experiment = scripted.scripted(
            tmp_path, [[1.0]] * 3, events=[down(0.5, 5.0, 0)], edge__servers=2, edge__balancer=balancer
        )
        rows = rows_of(experiment, "jpeg@0")
        assert [row.edge_wait_s for row in rows] == [near(k * serve_s(JPEG)) for k in range(3)]
        assert not any(row.lost_reply for row in rows)

    @pytest.mark.parametrize("balancer", ["round-robin", "least-loaded"])
    def test_when_all_are_down_everyone_is_refused(self, tmp_path: Path, balancer: str) -> None:
        events = [down(0.5, 5.0, 0), down(0.6, 5.0, 1)]
        experiment = scripted.scripted(tmp_path, [[1.0]] * 3, events=events, edge__servers=2, edge__balancer=balancer)
        assert [row.lost_reply for row in rows_of(experiment, "jpeg@0")] == [True] * 3

    def test_only_the_jobs_of_that_server_are_lost(self, tmp_path: Path) -> None:
        """Four at once, two on each; the second server fails while all are there."""
        events = [down(THERE_S + 0.01, 1.0, 1)]
        rows = rows_of(scripted.scripted(tmp_path, [[0.0]] * 4, events=events, edge__servers=2), "jpeg@0")
        assert [row.lost_reply for row in rows] == [False, True, False, True]

    def test_after_recovery_all_workers_are_free(self, tmp_path: Path) -> None:
        """Both workers were busy and two waited; a while later, two start at once."""
        events = [down(THERE_S + 0.01, 0.01)]
        experiment = scripted.scripted(tmp_path, [[0.0]] * 4 + [[0.03]] * 3, events=events, edge__workers=2)
        rows = rows_of(experiment, "jpeg@0")
        assert [row.lost_reply for row in rows] == [True] * 4 + [False] * 3
        assert [row.edge_wait_s for row in rows[4:]] == [near(0.0), near(0.0), near(serve_s(JPEG))]

    def test_those_who_wait_for_company_are_lost_too(self, tmp_path: Path) -> None:
        """A batch that is not complete; afterwards the wait for company begins anew."""
        events = [down(THERE_S + 0.01, 0.01)]
        batching = {"max_size": 3, "max_wait_ms": 50.0}
        experiment = scripted.scripted(tmp_path, [[0.0], [0.0], [0.03]], events=events, edge__batching=batching)
        rows = rows_of(experiment, "jpeg@0")
        assert [row.lost_reply for row in rows] == [True, True, False]
        assert rows[2].edge_wait_s == near(0.05)

    def test_the_cloud_goes_on(self, tmp_path: Path) -> None:
        """What was passed on before the edge failed comes back."""
        there_s = send_s((2, "raw")) + up_s((2, "raw"))
        experiment = scripted.scripted(tmp_path, [[0.0]], cloud=scripted.CLOUD, events=[down(there_s + 0.0001, 9.0)])
        assert rows_of(experiment, "raw@2")[0].answered_by == CLOUD


class TestOracle:
    """It knows the present state, and is never worse off than with a fixed plan where nobody else is."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"events": [down(0.0)]},
            {"events": [down(0.0, server=0)], "edge__servers": 2},
            {"events": [{"kind": "outage", "at_s": 0.0}]},
            {"events": [{"kind": "outage", "at_s": 0.0, "for_s": 1.1}]},
            {"events": [{"kind": "bandwidth", "at_s": 0.0, "factor": 0.01}]},
            {"cloud": scripted.CLOUD},
            {"edge__batching": {"max_size": 4, "max_wait_ms": 40.0}},
            {"edge__batching": {"max_size": 4, "max_wait_ms": 0.0}},
            {"access_points": {"cell": {"sharing": "processor"}}, "devices__access_point": "cell"},
            {"edge__queue": 0},
            {"edge__queue": 3, "edge__batching": {"max_size": 4, "max_wait_ms": 10.0}},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("slowness", [1.0, 10.0])
    def test_never_worse_alone(self, tmp_path: Path, changes: dict[str, Any], slowness: float) -> None:
        plans = {
            f"{codec}@{split}": {"name": "offload", "split": split, "codec": codec} for split, codec in scripted.SIZES
        }
        experiment = scripted.scripted(
            tmp_path,
            [[1.0]],
            sure_from=[2],
            policies={"local": "local", "oracle": "oracle"} | plans,
            **changes,
        )
        experiment = replace(experiment, slowness=slowness)
        worth = {label: self._worth(experiment, label) for label in experiment.scenario.policies}
        assert worth["oracle"] >= max(worth.values()) - 1e-9, worth

    @staticmethod
    def _worth(experiment: scripted.Scripted, label: str) -> float:
        (row,) = rows_of(experiment, label)
        return experiment.scenario.utility.of(row.correct, row.response_s, row.deadline_met)


def arrivals(folder: Path, events: Sequence[dict[str, Any]], **changes: Any) -> list[np.ndarray[Any, Any]]:
    """When requests come, by device."""
    groups = {"a": {"count": 2}, "b": {"count": 2}}
    experiment = synthetic.experiment(folder, requests=200, groups=groups, events=list(events), **changes)
    table = to_table(simulate(experiment, "local", 3))
    return [column(table, "arrival_s")[column(table, "device") == device] for device in range(4)]


class TestArrivals:
    """Devices that leave, and bursts."""

    def test_those_who_leave_come_back_with_as_many_requests(self, tmp_path: Path) -> None:
        """The first device of group a is away for 3 s; what it would have asked then, it asks 3 s later."""
        calm = arrivals(tmp_path, [])
        gone = arrivals(tmp_path, [{"kind": "leave", "at_s": 5.0, "for_s": 3.0, "share": 0.5, "on": "a"}])
        np.testing.assert_allclose(gone[0], np.where(calm[0] < 5.0, calm[0], calm[0] + 3.0), rtol=0, atol=1e-9)
        for device in (1, 2, 3):
            np.testing.assert_array_equal(gone[device], calm[device])

    def test_those_who_leave_for_good_ask_no_more(self, tmp_path: Path) -> None:
        calm = arrivals(tmp_path, [])
        gone = arrivals(tmp_path, [{"kind": "leave", "at_s": 5.0, "on": "b"}])
        for device in (2, 3):
            np.testing.assert_array_equal(gone[device], calm[device][calm[device] < 5.0])

    def test_a_burst_brings_the_same_requests_earlier(self, tmp_path: Path) -> None:
        """Five times as dense for 2 s: what would have come in 10 s comes in 2, and the rest 8 s earlier."""
        calm = arrivals(tmp_path, [])
        burst = arrivals(tmp_path, [{"kind": "burst", "at_s": 4.0, "for_s": 2.0, "factor": 5.0}])
        for before, after in zip(calm, burst, strict=True):
            inside, behind = (before >= 4.0) & (before < 14.0), before >= 14.0
            expected = np.where(inside, 4.0 + (before - 4.0) / 5.0, np.where(behind, before - 8.0, before))
            np.testing.assert_allclose(after, expected, rtol=0, atol=1e-9)

    def test_bursts_multiply_and_absence_wins(self, tmp_path: Path) -> None:
        """2 x 3 from 4 to 5 s; away from 4.5 s to 6 s, when everything is as before."""
        events = [
            {"kind": "burst", "at_s": 4.0, "for_s": 1.0, "factor": 2.0},
            {"kind": "burst", "at_s": 4.0, "for_s": 1.0, "factor": 3.0, "on": "a"},
            {"kind": "leave", "at_s": 4.5, "for_s": 1.5, "on": "a"},
        ]
        calm, found = arrivals(tmp_path, [])[0], arrivals(tmp_path, events)[0]
        expected = [t if t < 4.0 else 4.0 + (t - 4.0) / 6.0 if t < 7.0 else t - 1.0 for t in calm]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)

    def test_a_closed_loop_waits_until_it_is_back(self, tmp_path: Path) -> None:
        """Answers take 30 ms; the request that would come while it is away comes at the end of that."""
        events = [{"kind": "leave", "at_s": 1.0, "for_s": 2.0, "share": 0.5, "on": "a"}]
        found = arrivals(tmp_path, events, devices__arrivals={"name": "closed", "think_ms": 70.0})
        np.testing.assert_allclose(np.diff(found[1]), 0.1, rtol=0, atol=1e-9)
        steps = np.diff(found[0])
        assert len(found[0]) == 200
        assert found[0][np.argmax(steps) + 1] == near(3.0)
        np.testing.assert_allclose(np.delete(steps, np.argmax(steps)), 0.1, rtol=0, atol=1e-9)

    def test_a_closed_loop_that_leaves_for_good_ends(self, tmp_path: Path) -> None:
        events = [{"kind": "leave", "at_s": 1.05, "on": "a"}]
        found = arrivals(tmp_path, events, devices__arrivals={"name": "closed", "think_ms": 70.0})
        assert [len(times) for times in found] == [11, 11, 200, 200]


class TestForesight:
    """What the oracle expects of a plan is what comes of it, whatever is there, if nothing else arrives meanwhile.

    It does not see what is on its way to a tier, nor with whom a batch will be computed.
    """

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"edge__workers": 2},
            {"edge__servers": 2},
            {"edge__servers": 3, "edge__balancer": "least-loaded"},
            {"edge__queue": 0},
            {"edge__queue": 1},
            {"edge__queue": 2, "edge__workers": 2},
            {"cloud": scripted.CLOUD},
            {"access_points": {"cell": {}}, "devices__access_point": "cell"},
            {"access_points": {"cell": {"sharing": "processor"}}, "devices__access_point": "cell"},
            {"edge__batching": {"max_size": 3, "max_wait_ms": 7.0}},
            {"events": [down(0.0)], "devices__retries": 2},
            {"events": [{"kind": "outage", "at_s": 0.05, "for_s": 0.03}]},
            {"events": [{"kind": "outage", "at_s": 0.05}]},
            {
                "events": [{"kind": "outage", "at_s": 0.05}],
                "access_points": {"cell": {"sharing": "processor"}},
                "devices__access_point": "cell",
            },
        ],
        ids=str,
    )
    @pytest.mark.parametrize("at_s", [0.045, 0.060, 0.075, 0.120])
    def test_the_plan_turns_out_as_foreseen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], at_s: float
    ) -> None:
        """Four devices have sent before; the fifth looks ahead, and follows each plan in turn."""
        alone = "cloud" in changes or "edge__batching" in changes
        script = [[0.0], [0.001], [0.003], [0.004], [at_s + alone]]
        for split, codec in scripted.SIZES:
            plan, foreseen = Plan(split=split, codec=codec), list[float]()

            def decide(self: Oracle, observation: Observation, truth: Truth) -> Plan:
                foreseen.append(truth.utility(plan))  # noqa: B023
                return plan  # noqa: B023

            monkeypatch.setattr(Oracle, "decide_knowing", decide)
            before = {"name": "offload", "split": 1, "codec": "uint8"}
            policies: dict[str, Any] = {f"{number}": before for number in range(4)} | {"oracle": "oracle"}
            experiment = scripted.scripted(tmp_path, script, policies=policies, devices__deadline_ms=500.0, **changes)
            row = rows_of(experiment, "each")[4]
            found = experiment.scenario.utility.of(row.correct, row.response_s, row.deadline_met)
            assert foreseen == [near(found)], row
