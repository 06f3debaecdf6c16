"""One offloaded request on its way through the simulated edge."""

from __future__ import annotations

from dataclasses import dataclass

from splitexit.bundle import ModelSpec
from splitexit.calibration import Times
from splitexit.decision import ExitCheck, Reading
from splitexit.inference import ReadExit, RunStages, infer_on_edge
from splitexit.recording import Part


@dataclass(slots=True)
class Job:
    """What the edge is asked to do, and what came of it.

    Args:
        position: the sample's place in `part`.
        times: what every part of this request takes on the edge.
        give_up_s: when the device stops waiting; the edge starts nothing after it.
    """

    spec: ModelSpec
    part: Part
    position: int
    split: int
    codec: str
    edge_exits: tuple[ExitCheck, ...]
    times: Times
    give_up_s: float
    wait_s: float = 0.0
    compute_s: float = 0.0
    queue_length: int = 0
    reading: Reading | None = None

    def compute(self, start_s: float) -> None:
        """Decodes and runs from `start_s`; stops at the first stage boundary behind `give_up_s`.

        Sets `compute_s`, and `reading` unless it was stopped.
        """
        now_s = start_s + self.times.decode_s((self.split, self.codec))
        steps = infer_on_edge(self.spec, self.split, self.edge_exits)
        result: object = None
        try:
            while now_s < self.give_up_s:
                step = steps.send(result)
                if isinstance(step, RunStages):
                    now_s = self._run(step, now_s)
                    result = None
                elif isinstance(step, ReadExit):
                    now_s += self.times.exits[step.exit]
                    readings = self.part.edge_readings(self.split, self.codec, step.exit)
                    result = readings[self.position], 0.0
        except StopIteration as done:
            self.reading = done.value
        self.compute_s = now_s - start_s

    def _run(self, step: RunStages, now_s: float) -> float:
        for stage_s in self.times.stages[step.first : step.last]:
            if now_s >= self.give_up_s:
                break
            now_s += stage_s
        return now_s
