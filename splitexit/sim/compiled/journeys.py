"""What a policy does with every sample: the decision loop, run beforehand.

`splitexit.inference` is driven once per sample and branch (a reply comes, or none), answered from the recording.
What comes out is a `Journey`: a *path*, that is which steps take time in which order, and what is answered. Samples
share a few paths; only how long the steps take and how long is waited is left to the event loop.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from splitexit.decision import EdgeLoad, Plan, Reading
from splitexit.inference import Answer, Decider, infer, infer_on_edge
from splitexit.recording import Part
from splitexit.steps import Encode, NoReply, Payload, ReadExit, Reply, RunStages, Send

DeviceStep = RunStages | ReadExit | Encode
EdgeStep = tuple[str, int]
"""("stage", number from 0) or ("exit", number)."""

LONG_S = 1e6
"""Time left at a send while driving; no plan's own timeout is longer than the longest deadline, an hour."""


class Path(NamedTuple):
    """What takes time, in order.

    device      steps on the device before it sends or answers; the last one is Encode where it sends
    edge        steps on the edge after decoding
    fallback    the step on the device without a reply; None where it has a reading
    timeout_s   the plan's own limit on waiting
    """

    device: tuple[DeviceStep, ...]
    edge: tuple[EdgeStep, ...] = ()
    fallback: ReadExit | None = None
    timeout_s: float | None = None

    @property
    def pair(self) -> tuple[int, str] | None:
        """The (split, codec) that it sends; None where it does not."""
        last = self.device[-1]
        return (last.split, last.codec) if type(last) is Encode else None


@dataclass(frozen=True, slots=True)
class Journey:
    """One sample's way: payload bytes (0 where nothing is sent), and the readings that answer.

    `said` answers where nothing is sent or the reply comes, `alone` without a reply.
    """

    path: Path
    payload_bytes: int
    said: Reading
    alone: Reading


class _Drive:
    """One run of `infer` on one sample; `steps` holds what took time on the device, `send` the send."""

    def __init__(self, decider: Decider, part: Part, position: int, replied: bool) -> None:
        self._part, self._position, self._replied = part, position, replied
        self._spec = decider.setting.spec
        self.steps: list[DeviceStep] = []
        self.behind: list[DeviceStep] = []
        self.edge: list[EdgeStep] = []
        self.send: Send | None = None
        self.answer = self._through(infer(decider, 0.0))

    def _through(self, steps: Generator[Any, Any, Answer]) -> Answer:
        value: Any = None
        try:
            while True:
                value = self._told(steps.send(value))
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    def _told(self, step: Any) -> Any:
        if type(step) is Send:
            self.send = step
            return self._reply(step) if self._replied else NoReply(step.timeout_s)
        steps = self.steps if self.send is None else self.behind
        if type(step) is Encode and step.split > step.first:
            steps.append(RunStages(step.first, step.split))  # computing, and a column of its own
        steps.append(step)
        if type(step) is ReadExit:
            return self._part.readings(step.exit)[self._position], 0.0
        assert type(step) is Encode, f"no recording can answer {step}"
        return Payload(self._part.payload_sizes(step.split, step.codec)[self._position], 0.0, 0.0, -LONG_S)

    def _reply(self, send: Send) -> Reply:
        steps, value = infer_on_edge(self._spec, send.split, send.edge_exits, send.prior), None
        try:
            while True:
                value = self._on_edge(send, steps.send(value))
        except StopIteration as done:
            return Reply(done.value, 0.0, 0.0, 0.0, EdgeLoad(0, 0.0))

    def _on_edge(self, send: Send, step: Any) -> Any:
        first, last = step[-2:]
        self.edge += [("stage", stage) for stage in range(first, last)]
        if type(step) is RunStages:
            return 0.0
        self.edge.append(("exit", step.exit))
        return self._part.edge_readings(send.split, send.codec, step.exit)[self._position], 0.0


def journey(decider: Decider, part: Part, position: int) -> Journey:
    """What the policy does with the sample at this position of the part."""
    drive = _Drive(decider, part, position, True)
    said = _reading(drive.answer)
    if drive.send is None:
        return Journey(Path(tuple(drive.steps)), 0, said, said)
    alone = _Drive(decider, part, position, False)
    fallback = alone.behind[0] if alone.behind else None
    assert fallback is None or type(fallback) is ReadExit
    path = Path(tuple(drive.steps), tuple(drive.edge), fallback, drive.answer.plan.timeout_s)
    _check_timeout(path, drive.send, decider)
    return Journey(path, drive.send.payload.size_bytes, said, _reading(alone.answer))


def _reading(answer: Answer) -> Reading:
    assert answer.reading is not None
    return answer.reading


def _check_timeout(path: Path, send: Send, decider: Decider) -> None:
    """The event loop's rule for how long to wait is that of `infer`."""
    left_s = LONG_S if path.fallback is None else LONG_S - decider.setting.fallback_s[send.split]
    expected_s = left_s if path.timeout_s is None else min(left_s, path.timeout_s)
    assert send.timeout_s == expected_s, f"infer waits {send.timeout_s} s, the compiled engine {expected_s} s"


class Given(Decider):
    """A decider for one plan, whatever the policy that gave it would say now."""

    def __init__(self, of: Decider, plan: Plan) -> None:
        super().__init__(of.policy, of.setting)
        self._given = plan
        self.watches = False

    def decide(self, readings: list[Reading], stage: int) -> Plan:
        """The plan."""
        return self._given
