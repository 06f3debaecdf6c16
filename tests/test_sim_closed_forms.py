"""Single requests through every station of the simulator, added up by hand, to 1e-9."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitexit.calibration import Pair
from splitexit.results import CLOUD, DEVICE, EDGE, FALLBACK
from tests import scripted
from tests.scripted import (
    CLOUD_BACK_S,
    DECODE_S,
    DOWN_DELAY_S,
    DOWN_S,
    ENCODE_S,
    HEAD_S,
    STAGE_S,
    cloud_up_s,
    near,
    on_air_s,
    one,
    rows_of,
    run_s,
    send_s,
    serve_s,
    up_s,
)

JPEG: Pair = (0, "jpeg")
UINT8: Pair = (1, "uint8")
RAW: Pair = (2, "raw")
DEEP: Pair = (3, "uint8")
PAIRS = [JPEG, UINT8, RAW, DEEP]


def test_all_on_the_device(tmp_path: Path) -> None:
    row = one(tmp_path, "local")
    assert row.response_s == near(run_s(0, 4) + HEAD_S[3])
    assert (row.device_compute_s, row.answered_by, row.split) == (near(row.response_s), DEVICE, -1)


@pytest.mark.parametrize("pair", PAIRS)
def test_device_and_edge(tmp_path: Path, pair: Pair) -> None:
    row = one(tmp_path, f"{pair[1]}@{pair[0]}")
    assert row.device_compute_s == near(run_s(0, pair[0]))
    assert row.encode_s == near(ENCODE_S[pair])
    assert row.network_s == near(up_s(pair) + DOWN_S)
    assert row.airtime_s == near(on_air_s(pair))
    assert (row.edge_wait_s, row.edge_compute_s) == (near(0.0), near(serve_s(pair)))
    assert row.response_s == near(send_s(pair) + up_s(pair) + serve_s(pair) + DOWN_S)
    assert (row.answered_by, row.exit) == (EDGE, 3)


@pytest.mark.parametrize("sure", [0, 1, 2, 3, 9])
def test_exits_on_both_sides(tmp_path: Path, sure: int) -> None:
    """The device reads exit 0 before the split, the edge all behind."""
    both = scripted.exit_behind(1, "uint8", exits=[0])
    row = one(tmp_path, "both", sure_from=[sure], policies={"both": both})
    device_s, edge_s = STAGE_S[0] + HEAD_S[0], DECODE_S[UINT8]
    answering = min(sure, 3)
    for exit_ in range(1, answering + 1):
        edge_s += STAGE_S[exit_] + HEAD_S[exit_]
    sent_s = ENCODE_S[UINT8] + up_s(UINT8) + edge_s + DOWN_S
    assert row.response_s == near(device_s + (sent_s if sure else 0.0))
    assert (row.exit, row.answered_by) == (answering, EDGE if sure else DEVICE)


class TestCloud:
    """The edge runs two stages, the cloud the rest."""

    def test_what_arrives_before_its_split_is_passed_on_raw(self, tmp_path: Path) -> None:
        row = one(tmp_path, cloud=scripted.CLOUD)
        edge_s = DECODE_S[UINT8] + STAGE_S[1] + ENCODE_S[RAW]
        cloud_s = DECODE_S[RAW] + run_s(2, 4) + HEAD_S[3]
        assert row.edge_compute_s == near(edge_s + cloud_s)
        assert row.network_s == near(up_s(UINT8) + cloud_up_s(RAW) + CLOUD_BACK_S + DOWN_S)
        assert row.response_s == near(send_s(UINT8) + row.edge_compute_s + row.network_s)
        assert (row.answered_by, row.edge_wait_s, row.airtime_s) == (CLOUD, near(0.0), near(on_air_s(UINT8)))
        assert (row.split, row.codec, row.payload_bytes) == (1, "uint8", 4000)

    @pytest.mark.parametrize("pair", [RAW, DEEP])
    def test_what_arrives_at_or_behind_its_split_goes_on_as_it_came(self, tmp_path: Path, pair: Pair) -> None:
        row = one(tmp_path, f"{pair[1]}@{pair[0]}", cloud=scripted.CLOUD)
        assert row.edge_compute_s == near(serve_s(pair))
        assert row.network_s == near(up_s(pair) + cloud_up_s(pair) + CLOUD_BACK_S + DOWN_S)
        assert row.response_s == near(send_s(pair) + row.edge_compute_s + row.network_s)
        assert row.answered_by == CLOUD

    @pytest.mark.parametrize("sure", [0, 1, 2, 3, 9])
    def test_exits_answer_where_their_stage_runs(self, tmp_path: Path, sure: int) -> None:
        policies = {"exits": scripted.exit_behind(1, "uint8")}
        row = one(tmp_path, "exits", sure_from=[sure], cloud=scripted.CLOUD, policies=policies)
        edge_s = DECODE_S[UINT8] + STAGE_S[1] + HEAD_S[1]
        if sure <= 1:
            assert (row.answered_by, row.exit) == (EDGE, 1)
            assert row.response_s == near(send_s(UINT8) + up_s(UINT8) + edge_s + DOWN_S)
            return
        cloud_s = DECODE_S[RAW] + STAGE_S[2] + HEAD_S[2] + (STAGE_S[3] + HEAD_S[3] if sure > 2 else 0.0)
        way_s = up_s(UINT8) + cloud_up_s(RAW) + CLOUD_BACK_S + DOWN_S
        assert (row.answered_by, row.exit) == (CLOUD, min(sure, 3))
        assert row.response_s == near(send_s(UINT8) + edge_s + ENCODE_S[RAW] + cloud_s + way_s)

    def test_a_refusal_there_comes_all_the_way_back(self, tmp_path: Path) -> None:
        """Two at once; the edge has two workers, the cloud one and no room."""
        experiment = scripted.scripted(
            tmp_path, [[0.0], [0.0]], cloud=scripted.CLOUD | {"queue": 0}, edge__workers=2, devices__retries=2
        )
        rows = rows_of(experiment, "raw@2")
        served, refused = sorted(rows, key=lambda row: row.shed)
        behind_s = 8 * (8000 + 60) / scripted.CLOUD_UP_BPS  # one link to the cloud, first come first served
        assert served.response_s == near(
            send_s(RAW) + up_s(RAW) + cloud_up_s(RAW) + serve_s(RAW) + CLOUD_BACK_S + DOWN_S
        )
        assert (refused.answered_by, refused.shed, refused.lost_reply) == (FALLBACK, True, False)
        assert refused.network_s == near(up_s(RAW) + behind_s + cloud_up_s(RAW) + CLOUD_BACK_S + DOWN_S)
        assert refused.response_s == near(send_s(RAW) + refused.network_s + HEAD_S[1])


class TestRefusals:
    """No room at the edge."""

    def test_the_device_goes_on_alone(self, tmp_path: Path) -> None:
        """The second of two finds the worker busy; the fallback runs on to the next exit."""
        experiment = scripted.scripted(tmp_path, [[0.0], [0.001]], edge__queue=0, devices__retries=2)
        served, refused = rows_of(experiment, "jpeg@0")
        assert served.response_s == near(send_s(JPEG) + up_s(JPEG) + serve_s(JPEG) + DOWN_S)
        assert (refused.shed, refused.lost_reply, refused.answered_by) == (True, False, FALLBACK)
        assert refused.network_s == near(up_s(JPEG) + DOWN_S)
        assert refused.airtime_s == near(on_air_s(JPEG))
        assert refused.device_compute_s == near(STAGE_S[0] + HEAD_S[0])
        assert refused.response_s == near(send_s(JPEG) + up_s(JPEG) + DOWN_S + STAGE_S[0] + HEAD_S[0])

    def test_so_many_may_wait(self, tmp_path: Path) -> None:
        experiment = scripted.scripted(tmp_path, [[0.001 * k] for k in range(5)], edge__queue=2)
        rows = rows_of(experiment, "jpeg@0")
        assert [row.shed for row in rows] == [False, False, False, True, True]
        waits = [k * (serve_s(JPEG) - 0.001) for k in range(3)]
        assert [row.edge_wait_s for row in rows[:3]] == [near(wait) for wait in waits]


class TestServers:
    """Who is served where, and when."""

    def test_round_robin(self, tmp_path: Path) -> None:
        """Five at once for two servers of one worker: the third waits for the first, the fourth for the second."""
        rows = rows_of(scripted.scripted(tmp_path, [[0.0]] * 5, edge__servers=2), "jpeg@0")
        assert [row.edge_wait_s for row in rows] == [near(serve_s(JPEG) * k) for k in (0, 0, 1, 1, 2)]

    def test_least_loaded_takes_the_shortest_queue(self, tmp_path: Path) -> None:
        """The first server gets image (long), the second features (short); the third goes where it is empty."""
        names = {
            f"{codec}@{split}": {"name": "offload", "split": split, "codec": codec} for split, codec in [JPEG, DEEP]
        }
        first_s = send_s(JPEG) + up_s(JPEG)
        late_s = first_s + serve_s(DEEP) + 0.001 - send_s(JPEG) - up_s(JPEG)
        early = first_s - send_s(DEEP) - up_s(DEEP) + 0.0005
        script = [[1.0], [1.0 + early], [1.0 + late_s]]
        for balancer, wait in (("least-loaded", 0.0), ("round-robin", serve_s(JPEG) - serve_s(DEEP) - 0.001)):
            experiment = scripted.scripted(tmp_path, script, edge__servers=2, edge__balancer=balancer, policies=names)
            rows = rows_of(experiment, "each")
            assert [row.edge_wait_s for row in rows] == [near(0.0), near(0.0), near(wait)], balancer

    def test_nobody_waits_any_more_for_a_running_job(self, tmp_path: Path) -> None:
        """The worker stops at the first boundary behind the deadline, and takes the next."""
        deadline_s = send_s(JPEG) + up_s(JPEG) + DECODE_S[JPEG] + STAGE_S[0] + 0.005
        give_up_s = deadline_s - STAGE_S[0] - HEAD_S[0]  # in the first stage
        groups = {"hasty": {"deadline_ms": 1e3 * deadline_s}, "patient": {}}
        experiment = scripted.scripted(tmp_path, [[0.0], [0.001]], groups=groups, devices__count=1)
        hasty, patient = rows_of(experiment, "jpeg@0")
        assert (hasty.answered_by, hasty.lost_reply, hasty.shed) == (FALLBACK, True, False)
        assert hasty.network_s == near(give_up_s - send_s(JPEG))
        assert hasty.response_s == near(deadline_s)
        assert patient.edge_wait_s == near(DECODE_S[JPEG] + STAGE_S[0] - 0.001)
        assert patient.answered_by == EDGE

    def test_nobody_waits_any_more_for_a_waiting_job(self, tmp_path: Path) -> None:
        """Its device gives up while the first is served; the third starts right after the first."""
        deadline_s = send_s(JPEG) + up_s(JPEG) + 0.010 + STAGE_S[0] + HEAD_S[0]
        groups = {"first": {}, "hasty": {"deadline_ms": 1e3 * deadline_s}, "third": {}}
        experiment = scripted.scripted(tmp_path, [[0.0], [0.001], [0.002]], groups=groups, devices__count=1)
        _, hasty, third = rows_of(experiment, "jpeg@0")
        assert (hasty.answered_by, hasty.response_s) == (FALLBACK, near(deadline_s))
        assert third.edge_wait_s == near(serve_s(JPEG) - 0.002)

    def test_one_that_gave_up_takes_no_room(self, tmp_path: Path) -> None:
        """With room for one: the second has given up when the third arrives, so that the third may wait."""
        deadline_s = send_s(JPEG) + up_s(JPEG) + 0.010 + STAGE_S[0] + HEAD_S[0]
        groups = {"first": {}, "hasty": {"deadline_ms": 1e3 * deadline_s}, "third": {}}
        experiment = scripted.scripted(
            tmp_path, [[0.0], [0.001], [0.012]], groups=groups, devices__count=1, edge__queue=1
        )
        third = rows_of(experiment, "jpeg@0")[2]
        assert (third.shed, third.edge_wait_s) == (False, near(serve_s(JPEG) - 0.012))


class TestPipeline:
    """Two requests of one device, the second right behind the first."""

    @pytest.mark.parametrize("pipeline", [True, False])
    def test_the_cpu_waits_or_does_not(self, tmp_path: Path, pipeline: bool) -> None:
        experiment = scripted.scripted(tmp_path, [[0.0, 0.001]], devices__pipeline=pipeline)
        first, second = rows_of(experiment, "uint8@1")
        whole_s = send_s(UINT8) + up_s(UINT8) + serve_s(UINT8) + DOWN_S
        assert first.response_s == near(whole_s)
        assert second.start_s == near(send_s(UINT8) if pipeline else whole_s)
        waits_s = serve_s(UINT8) - send_s(UINT8) if pipeline else 0.0
        assert second.edge_wait_s == near(waits_s)
        assert second.done_s == near(second.start_s + whole_s + waits_s)

    @pytest.mark.parametrize("pipeline", [True, False])
    def test_a_fallback_goes_before_new_arrivals(self, tmp_path: Path, pipeline: bool) -> None:
        """The first is refused while the second computes, the second while the first does; the third comes last."""
        events = [{"kind": "edge-down", "at_s": 0.0}]
        back_s = send_s(JPEG) + up_s(JPEG) + DOWN_DELAY_S
        script = [[0.0, back_s - 0.001, back_s - 0.0005]]
        experiment = scripted.scripted(tmp_path, script, events=events, devices__pipeline=pipeline)
        first, second, third = rows_of(experiment, "jpeg@0")
        alone_s = STAGE_S[0] + HEAD_S[0]
        if not pipeline:
            assert first.response_s == near(back_s + alone_s)
            assert second.start_s == near(first.done_s)
            assert third.start_s == near(second.done_s)
            return
        assert second.start_s == near(script[0][1])
        assert first.done_s == near(script[0][1] + send_s(JPEG) + alone_s)
        assert second.done_s == near(first.done_s + alone_s)
        assert third.start_s == near(second.done_s)


class TestBatches:
    """Jobs that are computed together."""

    def test_those_who_are_sure_leave_early(self, tmp_path: Path) -> None:
        """Four at once; each stage and head costs a pass of those who still need it."""
        sure_from = [1, 2, 3, 3]
        experiment = scripted.scripted(
            tmp_path,
            [[0.0]] * 4,
            sure_from=sure_from,
            edge__batching={"max_size": 4, "max_wait_ms": 5.0},
            policies={"exits": scripted.exit_behind(1, "uint8")},
        )
        rows = rows_of(experiment, "exits")
        depth = {0: 1, 1: 2, 2: 3, 3: 3}
        factor = {1: 1.0, 2: 1.5, 3: 1.75, 4: 2.0}
        ends, now_s = {}, 4 * DECODE_S[UINT8]
        left = [depth[row.sample] for row in rows]
        for exit_ in (1, 2, 3):
            present = sum(d >= exit_ for d in left)
            if present:
                now_s += factor[present] * (STAGE_S[exit_] + HEAD_S[exit_])
            ends[exit_] = now_s
        for row in rows:
            assert row.exit == depth[row.sample]
            assert row.edge_wait_s == near(0.0)
            assert row.edge_compute_s == near(ends[row.exit])
            assert row.response_s == near(send_s(UINT8) + up_s(UINT8) + ends[row.exit] + DOWN_S)

    def test_one_alone_waits_for_company_in_vain(self, tmp_path: Path) -> None:
        row = one(tmp_path, edge__batching={"max_size": 4, "max_wait_ms": 30.0})
        assert (row.edge_wait_s, row.edge_compute_s) == (near(0.030), near(serve_s(UINT8)))

    def test_only_those_of_one_split_keep_each_other_company(self, tmp_path: Path) -> None:
        """Features and image arrive at about the same time: the image's batch comes second."""
        policies = {
            "deep": {"name": "offload", "split": 3, "codec": "uint8"},
            "image": {"name": "offload", "split": 0, "codec": "jpeg"},
        }
        lag_s = send_s(DEEP) + up_s(DEEP) - send_s(JPEG) - up_s(JPEG) + 0.001
        experiment = scripted.scripted(
            tmp_path,
            [[0.0], [lag_s], [0.002]],
            edge__batching={"max_size": 2, "max_wait_ms": 10.0},
            policies=policies,
        )
        first, image, third = rows_of(experiment, "each")
        together_s = 2 * DECODE_S[DEEP] + 1.5 * (STAGE_S[3] + HEAD_S[3])
        assert (first.edge_wait_s, third.edge_wait_s) == (near(0.002), near(0.0))
        assert (first.edge_compute_s, third.edge_compute_s) == (near(together_s), near(together_s))
        assert image.edge_wait_s == near(max(0.010, together_s + 0.001))
        assert image.edge_compute_s == near(serve_s(JPEG))

    def test_room_is_for_those_who_wait(self, tmp_path: Path) -> None:
        """Two fill a batch at once; of the next three, two wait and one is refused."""
        experiment = scripted.scripted(
            tmp_path, [[0.0], [0.0], [0.001], [0.001], [0.001]], edge__queue=2, edge__batching={"max_size": 2}
        )
        rows = rows_of(experiment, "jpeg@0")
        assert [row.shed for row in rows].count(True) == 1 + (rows[1].edge_wait_s > 0)


class TestFailures:
    """The edge is down for a while."""

    def test_what_runs_is_lost_and_the_device_hears_of_it(self, tmp_path: Path) -> None:
        at_s = send_s(UINT8) + up_s(UINT8) + 0.010
        row = one(tmp_path, at_s=0.0, events=[{"kind": "edge-down", "at_s": at_s, "for_s": 1.0}])
        assert (row.answered_by, row.lost_reply, row.shed) == (FALLBACK, True, False)
        assert row.response_s == near(at_s + DOWN_DELAY_S + HEAD_S[0])
        assert row.network_s == near(at_s + DOWN_DELAY_S - send_s(UINT8))
        assert (row.edge_wait_s, row.edge_compute_s) == (0.0, 0.0)

    def test_what_waits_is_lost_too(self, tmp_path: Path) -> None:
        at_s = send_s(JPEG) + up_s(JPEG) + 0.010
        events = [{"kind": "edge-down", "at_s": at_s, "for_s": 1.0}]
        rows = rows_of(scripted.scripted(tmp_path, [[0.0], [0.001], [0.002]], events=events), "jpeg@0")
        for row in rows:
            assert row.lost_reply
            assert row.done_s == near(at_s + DOWN_DELAY_S + STAGE_S[0] + HEAD_S[0])

    @pytest.mark.parametrize("retries", [0, 1, 2])
    def test_retries_until_it_is_up(self, tmp_path: Path, retries: int) -> None:
        """The first two tries are refused at the door; the third finds the edge up."""
        there_s = send_s(UINT8) + up_s(UINT8)
        again_s = DOWN_DELAY_S + up_s(UINT8)
        events = [{"kind": "edge-down", "at_s": 0.0, "for_s": there_s + again_s + 0.001}]
        row = one(tmp_path, at_s=0.0, events=events, devices__retries=retries)
        assert row.airtime_s == near((retries + 1) * on_air_s(UINT8))
        failed_s = up_s(UINT8) + DOWN_DELAY_S
        if retries < 2:
            assert (row.answered_by, row.lost_reply) == (FALLBACK, True)
            assert row.network_s == near((retries + 1) * failed_s)
            assert row.response_s == near(send_s(UINT8) + row.network_s + HEAD_S[0])
            return
        assert (row.answered_by, row.lost_reply, row.shed) == (EDGE, False, False)
        assert row.network_s == near(2 * failed_s + up_s(UINT8) + DOWN_S)
        assert row.response_s == near(send_s(UINT8) + row.network_s + serve_s(UINT8))

    def test_what_was_lost_with_a_batch_does_not_come_back(self, tmp_path: Path) -> None:
        """The server fails and recovers while the batch would still run; the next one is served at once."""
        at_s = send_s(JPEG) + up_s(JPEG) + 0.010
        events = [{"kind": "edge-down", "at_s": at_s, "for_s": 0.005}]
        later_s = 0.010 + 0.006
        experiment = scripted.scripted(
            tmp_path, [[0.0], [0.0], [later_s]], events=events, edge__batching={"max_size": 2, "max_wait_ms": 0.0}
        )
        rows = rows_of(experiment, "jpeg@0")
        assert [row.lost_reply for row in rows] == [True, True, False]
        assert (rows[2].edge_wait_s, rows[2].edge_compute_s) == (near(0.0), near(serve_s(JPEG)))

    def test_a_job_that_the_edge_passed_on_is_safe(self, tmp_path: Path) -> None:
        """It is in the cloud when the edge fails; only what runs or waits at the edge is lost."""
        at_s = send_s(RAW) + up_s(RAW) + 0.001
        row = one(
            tmp_path,
            "raw@2",
            at_s=0.0,
            cloud=scripted.CLOUD,
            events=[{"kind": "edge-down", "at_s": at_s, "for_s": 1.0}],
        )
        assert (row.answered_by, row.lost_reply) == (CLOUD, False)

    @pytest.mark.parametrize("deadline_ms", [100.0, 150.0, 160.0, 190.0, 200.0, 250.0, 300.0, 350.0])
    def test_a_retry_that_nobody_answers(self, tmp_path: Path, deadline_ms: float) -> None:
        """The first try is refused, the second gets lost on the way; both would give up at the same time."""
        refused_s = send_s(UINT8) + up_s(UINT8) + DOWN_DELAY_S
        events = [
            {"kind": "edge-down", "at_s": 0.0, "for_s": refused_s + 0.001},
            {"kind": "outage", "at_s": refused_s + 0.002, "direction": "up"},
        ]
        row = one(tmp_path, at_s=0.0, events=events, devices__retries=1, devices__deadline_ms=deadline_ms)
        assert (row.answered_by, row.lost_reply) == (FALLBACK, True)
        assert row.network_s == near(deadline_ms / 1e3 - HEAD_S[0] - send_s(UINT8))
        assert row.response_s == near(deadline_ms / 1e3)

    @pytest.mark.parametrize("at_s", [0.0, 0.1, 0.7, 1.3, 2.9])
    def test_when_time_is_up_nothing_is_sent_again(self, tmp_path: Path, at_s: float) -> None:
        """No answer comes back; at the deadline there are retries left, and no time."""
        events = [{"kind": "outage", "at_s": 0.0, "direction": "down"}]
        for deadline_ms in range(100, 200, 7):
            row = one(tmp_path, at_s=at_s, events=events, devices__retries=2, devices__deadline_ms=float(deadline_ms))
            assert row.airtime_s == near(on_air_s(UINT8))
