"""One offloaded request on its way through the simulated servers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from splitexit.bundle import ModelSpec
from splitexit.calibration import Pair, Times
from splitexit.decision import Reading
from splitexit.inference import infer_behind
from splitexit.sim.calendar import Event
from splitexit.sim.task import Task
from splitexit.steps import ReadExit, RunStages, Send

if TYPE_CHECKING:
    from splitexit.sim.transport import Transport


class Share(Protocol):
    """What a tier's servers do of the network: the stages up to `until`; `recodes` is how they pass features on."""

    spec: ModelSpec
    until: int

    def course(self, split: int) -> Sequence[RunStages | ReadExit]:
        """What is done with features of that split where no exits are to be looked at."""

    @property
    def recodes(self) -> Pair | None:
        """(split, codec) of features that go on to the next tier."""


class Job(Event):
    """What the servers are asked to do, and what came of it.

    task, send, home   the request, what it asked for, and the way back to its device
    sent_s, give_up_s  when its device sent it, and when that stops waiting; nothing is started for it after that
    split, codec       the features that it arrives with; a tier that passes it on changes them
    size_bytes         on the wire, with framing
    times              what every part of this request takes at the tier where it is
    readings           what exits behind the link have said
    arrive_s           when it reached the tier where it is
    wait_s, compute_s  of all tiers together
    reading            the answer
    awaited            whether its device still waits for this one
    """

    __slots__ = (
        "airtime_s",
        "answered_by",
        "arrive_s",
        "awaited",
        "codec",
        "compute_s",
        "give_up_s",
        "home",
        "queue_length",
        "reading",
        "readings",
        "send",
        "sent_s",
        "shed",
        "size_bytes",
        "split",
        "task",
        "times",
        "wait_s",
    )

    answered_by: str
    arrive_s: float

    def __init__(self, task: Task, send: Send, home: Transport, times: Times, size_bytes: int, now_s: float) -> None:
        self.task, self.send, self.home, self.times, self.size_bytes = task, send, home, times, size_bytes
        self.split, self.codec = send.split, send.codec
        self.sent_s, self.give_up_s = now_s, now_s + send.timeout_s
        self.wait_s = self.compute_s = self.airtime_s = 0.0
        self.queue_length = 0
        self.reading: Reading | None = None
        self.readings: list[Reading] = []
        self.awaited, self.shed = True, False

    def compute(self, tier: Share, start_s: float) -> float:
        """Decodes and runs the tier's stages from `start_s`; stops at the first boundary at or behind `give_up_s`.

        What arrived behind the tier's last stage is not touched. Sets `reading` where an exit answers in time, adds
        to `compute_s`.

        Returns:
            When it is done, or has been stopped.
        """
        now_s = start_s
        if self.split < tier.until:
            now_s += self.times.decode_s((self.split, self.codec))
        depends = self.send.edge_exits or self.send.prior is not None
        now_s = self._follow(tier, now_s) if depends else self._run_through(tier, now_s)
        if self.reading is None and now_s < self.give_up_s:
            now_s += self.recoding_s(tier)
        self.compute_s += now_s - start_s
        return now_s

    def _follow(self, tier: Share, now_s: float) -> float:
        """Asks step by step what comes next, for that depends on what exits say."""
        steps = infer_behind(tier.spec, self.split, self.send.edge_exits, self.readings, tier.until, self.send.prior)
        said: tuple[Reading, float] | None = None
        try:
            while now_s < self.give_up_s:
                step = steps.send(said)
                now_s = self._run(step, now_s)
                said = (self.says(step.exit), 0.0) if type(step) is ReadExit else None
        except StopIteration as done:
            self.reading = done.value
        return now_s

    def _run_through(self, tier: Share, now_s: float) -> float:
        """Without exits to look at, every job of a split goes the same way."""
        for step in tier.course(self.split):
            now_s = self._run(step, now_s)
            if type(step) is ReadExit and now_s < self.give_up_s:
                self.reading = self.says(step.exit)
        return now_s

    def _run(self, step: RunStages | ReadExit, now_s: float) -> float:
        """When the step is done, or was stopped."""
        give_up_s = self.give_up_s
        for stage_s in self.times.stages[step.first : step.last]:
            if now_s >= give_up_s:
                return now_s
            now_s += stage_s
        if type(step) is ReadExit and now_s < give_up_s:
            now_s += self.times.exits[step.exit]
        return now_s

    def recoding_s(self, tier: Share) -> float:
        """Seconds to encode what goes on to the next tier; what arrived behind the last stage goes on as it came."""
        return self.times.encode_s(tier.recodes) if tier.recodes is not None and self.split < tier.until else 0.0

    def expected_done_s(self, tier: Share, start_s: float) -> float:
        """What `compute` would return, without any trace."""
        twin = copy.copy(self)
        twin.readings = [*self.readings]
        return twin.compute(tier, start_s)

    def says(self, exit_: int) -> Reading:
        """What this exit says on the features that the device sent."""
        send, task = self.send, self.task
        return task.part.edge_readings(send.split, send.codec, exit_)[task.position]
