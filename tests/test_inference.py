"""The decision loop, driven by hand: which steps it asks for, and how it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from splitexit.decision import EdgeLoad, ExitCheck, LinkEstimate, Observation, Plan, Reading, Setting, Utility
from splitexit.errors import PolicyError
from splitexit.inference import Answer, Decider, infer, infer_on_edge
from splitexit.policies import Policy
from splitexit.results import DEVICE, EDGE, FALLBACK, LOCAL
from splitexit.steps import Encode, NoReply, Observe, Payload, ReadExit, Reply, Send
from tests import synthetic

MODEL = synthetic.spec(3)
SETTING = Setting(
    MODEL,
    synthetic.calibration(MODEL, 0.010, head=0.001),
    synthetic.calibration(MODEL),
    {},
    synthetic.recording(MODEL, samples=4).calibration,
    LinkEstimate(1e6, 0.01),
    Utility(),
    1.0,
)


class Scripted(Policy):
    """Answers with the given plans in turn; looks at the readings it is given."""

    reads: ClassVar[frozenset[str]] = frozenset({"readings"})

    def __init__(self, *plans: Plan) -> None:
        self.plans = list(plans)
        self.revises = len(plans) > 1
        self.seen: list[int] = []

    def decide(self, observation: Observation) -> Plan:
        self.seen.append(len(observation.readings))
        return self.plans.pop(0)


class Watchful(Scripted):
    """Looks at more than readings, so that the world must be asked."""

    reads: ClassVar[frozenset[str]] = frozenset({"readings", "queue_length"})


def drive(
    *plans: Plan | Scripted,
    sure: tuple[int, ...] = (),
    reply: Any = None,
    now_s: float = 0.0,
    deadline_s: float = 1.0,
    setting: Setting = SETTING,
) -> tuple[Answer, list[Any]]:
    """Answers every step: stages take 10 ms, heads 1 ms; exits in `sure` are certain."""
    policy = plans[0] if isinstance(plans[0], Scripted) else Scripted(*plans)
    steps, asked, value = infer(Decider(policy, setting), deadline_s), [], None
    try:
        while True:
            step = steps.send(value)
            asked.append(step)
            match step:
                case Observe():
                    value = Observation(readings=step.readings, queue_length=0)
                case ReadExit():
                    sureness = 0.99 if step.exit in sure else 0.3 + 0.1 * step.exit
                    value = Reading(step.exit, step.exit, sureness, 1, 0), 0.010 * (step.last - step.first) + 0.001
                case Encode():
                    value = Payload(500, 0.010 * (step.split - step.first), 0.002, now_s)
                case Send():
                    value = reply
    except StopIteration as done:
        return done.value, asked


EARLY = (ExitCheck(0, threshold=0.9), ExitCheck(1, threshold=0.9))
REPLY = Reply(Reading(2, 7, 0.8, 0.5, 0.6), 0.020, 0.001, 0.005, EdgeLoad(0, 0.001))


def test_the_empty_plan_runs_everything_and_reads_only_the_final_head() -> None:
    answer, asked = drive(Plan())
    assert asked == [ReadExit(2, 0, 3)]
    assert (answer.answered_by, answer.split, answer.reading.exit) == (DEVICE, LOCAL, 2)
    assert answer.device_compute_s == pytest.approx(0.031)


def test_a_sure_exit_stops_the_work() -> None:
    answer, asked = drive(Plan(exits=EARLY, split=2, codec="raw"), sure=(0,))
    assert asked == [ReadExit(0, 0, 1)]
    assert answer.reading.exit == 0


def test_an_unsure_one_goes_on_and_offloads() -> None:
    answer, asked = drive(Plan(exits=EARLY, split=2, codec="raw"), reply=REPLY)
    assert [type(s).__name__ for s in asked] == ["ReadExit", "ReadExit", "Encode", "Send"]
    assert (answer.answered_by, answer.reading.prediction, answer.payload_bytes) == (EDGE, 7, 500)
    assert (answer.network_s, answer.edge_wait_s, answer.edge_compute_s) == (0.020, 0.001, 0.005)


def test_without_a_reply_the_most_confident_reading_answers() -> None:
    answer, _ = drive(Plan(exits=EARLY, split=2, codec="raw"), reply=NoReply(0.9))
    assert (answer.answered_by, answer.reading.exit, answer.lost_reply, answer.shed) == (FALLBACK, 1, True, False)


def test_without_any_reading_it_computes_on_to_the_next_exit() -> None:
    answer, asked = drive(Plan(split=0, codec="jpeg"), reply=NoReply(0.1, shed=True))
    assert asked[-1:] == [ReadExit(0, 0, 1)]
    assert (answer.answered_by, answer.shed, answer.lost_reply) == (FALLBACK, True, False)


def test_the_timeout_leaves_time_for_the_fallback() -> None:
    """Deadline 1 s, now 0.4 s, a stage and a head (11 ms) to the next exit from split 0; none with a reading."""
    _, asked = drive(Plan(split=0, codec="jpeg"), reply=REPLY, now_s=0.4)
    assert asked[-1].timeout_s == pytest.approx(0.6 - 0.011)
    _, asked = drive(Plan(exits=EARLY, split=2, codec="raw"), reply=REPLY, now_s=0.4)
    assert asked[-1].timeout_s == pytest.approx(0.6)
    _, asked = drive(Plan(split=0, codec="jpeg", timeout_s=0.05), reply=REPLY, now_s=0.4)
    assert asked[-1].timeout_s == pytest.approx(0.05)


def test_past_the_deadline_nothing_is_sent() -> None:
    answer, asked = drive(Plan(exits=EARLY, split=2, codec="raw"), now_s=1.5)
    assert not any(isinstance(step, Send) for step in asked)
    assert (answer.answered_by, answer.split, answer.payload_bytes) == (FALLBACK, LOCAL, 0)


def test_a_policy_that_revises_is_asked_after_every_reading() -> None:
    plan = Plan(exits=EARLY, split=2, codec="raw")
    policy = Scripted(plan, Plan(exits=EARLY), Plan())
    answer, _ = drive(policy, reply=REPLY)
    assert policy.seen == [0, 1, 2]
    assert (answer.answered_by, answer.reading.exit, answer.plan) == (DEVICE, 2, Plan())


def test_only_a_policy_that_looks_further_makes_the_world_be_asked() -> None:
    plan = Plan(exits=EARLY, split=2, codec="raw")
    policy = Watchful(plan, plan, plan)
    _, asked = drive(policy, reply=REPLY)
    assert [len(step.readings) for step in asked if isinstance(step, Observe)] == policy.seen == [0, 1, 2]


def test_a_failure_noticed_in_time_is_tried_again() -> None:
    """One retry: two sends, the second with what is left of the time; shedding is final."""
    again = replace(SETTING, retries=1)
    _, asked = drive(Plan(exits=EARLY, split=2, codec="raw"), reply=NoReply(0.3), setting=again)
    sends = [step for step in asked if isinstance(step, Send)]
    assert [send.timeout_s for send in sends] == pytest.approx([1.0, 0.7])
    _, asked = drive(Plan(exits=EARLY, split=2, codec="raw"), reply=NoReply(0.3, shed=True), setting=again)
    assert sum(isinstance(step, Send) for step in asked) == 1


def test_a_revision_cannot_undo_stages() -> None:
    with pytest.raises(PolicyError, match="1 stages have already run"):
        drive(Plan(exits=EARLY), Plan(split=0, codec="jpeg"))


def test_the_edge_stops_at_a_sure_exit_too() -> None:
    steps, asked, value = infer_on_edge(MODEL, 0, (ExitCheck(1, threshold=0.9),)), [], None
    with pytest.raises(StopIteration) as done:
        while True:
            step = steps.send(value)
            asked.append(step)
            value = (Reading(step.exit, 5, 0.95, 0, 0), 0.0) if isinstance(step, ReadExit) else None
    assert asked == [ReadExit(1, 0, 2)]
    assert done.value.value.prediction == 5


def test_no_torch_no_grpc_in_the_core(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, splitexit.sim, splitexit.compare, splitexit.report.tables;"
        "assert not {'torch', 'grpc', 'matplotlib', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_policy_learns_how_its_requests_ended() -> None:
    class Learning(Scripted):
        heard: ClassVar[list[Any]] = []

        def learn(self, outcome: Any) -> None:
            self.heard.append(outcome)

    answer, _ = drive(Plan(exits=EARLY, split=2, codec="raw"), reply=REPLY)
    Decider(Learning(), SETTING).learn(answer, 0.123)
    (outcome,) = Learning.heard
    assert (outcome.response_s, outcome.answered_by, outcome.payload_bytes) == (0.123, EDGE, 500)
    assert (outcome.edge_reading, outcome.transfer_s) == (REPLY.reading, 0.020)
    assert [reading.exit for reading in outcome.readings] == [0, 1]
