"""A request being worked on by a simulated device."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from splitexit.calibration import Times
from splitexit.inference import Answer, Encode, Now, Payload, ReadExit, Request, RunStages, Step
from splitexit.recording import Part


@dataclass(slots=True)
class Task:
    """One request on the device.

    `position` is the sample's place in `part`; `step` is what the generator asked for last. `clock_s`
    is the request's own time: it runs ahead of the calendar while the CPU works, because nothing
    outside can interfere with a stage. `busy_since_s` is when the CPU took it up last.
    """

    request: Request
    part: Part
    position: int
    steps: Generator[Step, Any, Answer]
    times: Times
    start_s: float
    clock_s: float
    busy_since_s: float
    step: Step | None = None

    def compute(self, step: Any) -> Any:
        """Answers a step that needs nothing but the CPU, and moves the clock by what it takes."""
        kind = type(step)
        if kind is RunStages:
            seconds = self.times.run_s(step.first, step.last)
            self.clock_s += seconds
            return seconds
        if kind is ReadExit:
            seconds = self.times.exits[step.exit]
            self.clock_s += seconds
            return self.part.readings(step.exit)[self.position], seconds
        if kind is Encode:
            seconds = self.times.encode_s((step.split, step.codec))
            self.clock_s += seconds
            return Payload(self.part.payload_sizes(step.split, step.codec)[self.position], seconds)
        assert kind is Now, f"no CPU can answer {step}"
        return self.clock_s
