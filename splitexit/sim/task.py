"""A request being worked on by a simulated device."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from splitexit.calibration import ServiceTimes, Times
from splitexit.inference import Answer, Request
from splitexit.recording import Part
from splitexit.sim.calendar import Event
from splitexit.steps import Encode, Payload, ReadExit, Step, Switch


class Task(Event):
    """One request on the device.

    request, position  what was asked, and the sample's place in `part`
    steps, step        its generator, and what that asked for last
    drawn              what every part of every request takes on this device
    times              what every part of this one takes, in the mode that the device is in
    start_s            when it was taken up
    clock_s            its own time: it runs ahead of the calendar while the CPU works, because nothing outside can
                       interfere with a stage
    busy_since_s       when the CPU took it up last
    answer             how it ended
    """

    __slots__ = (
        "answer",
        "busy_since_s",
        "clock_s",
        "drawn",
        "part",
        "position",
        "request",
        "start_s",
        "step",
        "steps",
        "times",
    )

    step: Any

    def __init__(
        self,
        request: Request,
        part: Part,
        position: int,
        steps: Generator[Step, Any, Answer],
        drawn: ServiceTimes,
        start_s: float,
    ) -> None:
        self.request, self.part, self.position, self.steps, self.drawn = request, part, position, steps, drawn
        self.times = drawn.at(request.number)
        self.start_s = self.clock_s = self.busy_since_s = start_s
        self.answer: Answer | None = None

    def times_in(self, mode: str | None) -> Times:
        """What every part of it takes in that mode; None: in the one that the device is in."""
        return self.times if mode is None else self.drawn.modes[mode].at(self.request.number)

    def compute(self, step: Any) -> Any:
        """Answers a step that needs nothing but the CPU, and moves the clock by what it takes."""
        kind = type(step)
        if kind is ReadExit:
            exit_, first, last = step
            seconds = self.times.exits[exit_]
            if last > first:
                seconds += self.times.run_s(first, last)
            self.clock_s += seconds
            return self.part.readings(exit_)[self.position], seconds
        if kind is Switch:
            self.times = self.times_in(step.mode)
            return None
        assert kind is Encode, f"no CPU can answer {step}"
        split, codec, first = step
        seconds = self.times.run_s(first, split) if split > first else 0.0
        encode_s = self.times.encode_s((split, codec))
        self.clock_s += seconds
        self.clock_s += encode_s
        return Payload(self.part.payload_sizes(split, codec)[self.position], seconds, encode_s, self.clock_s)
