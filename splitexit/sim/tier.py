"""A tier behind the devices: servers behind a balancer, and perhaps another tier behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from splitexit.bundle import ModelSpec
from splitexit.calibration import Pair, ServiceTimes
from splitexit.inference import course_behind
from splitexit.sim.calendar import Calendar
from splitexit.sim.job import Job
from splitexit.sim.lane import Lane
from splitexit.sim.server import Server
from splitexit.steps import ReadExit, RunStages


@dataclass(frozen=True)
class Onward:
    """The way from one tier to the next.

    tier             the next one
    uplink           to it, shared by all servers of the first
    split, codec     features leave the first tier like this, unless they arrived behind that split: those go on as
                     they came, because no reading behind a second lossy codec was ever recorded
    size_bytes       of such features, with framing
    times            device number -> what every part of its requests takes at the next tier
    """

    tier: Tier
    uplink: Lane
    split: int
    codec: str
    size_bytes: int
    times: Callable[[int], ServiceTimes]


class Tier:
    """Servers that hold the model's stages up to `until`.

    Args:
        calendar, spec: the run's calendar and model.
        name: what a row says of an answer from here.
        until: the last stage that the servers have.
        balancer: `round-robin`, or `least-loaded`: fewest waiting and running, of equals the first.

    servers  in order of their numbers
    onward   the way to the tier behind this one, if there is one; `recodes` is then how features are sent there
    back     for a tier behind another one: the downlink to it, and the bytes of a reply
    """

    def __init__(self, calendar: Calendar, spec: ModelSpec, name: str, until: int, balancer: str) -> None:
        self._env, self.spec, self.name, self.until = calendar.env, spec, name, until
        self.servers: list[Server] = []
        self._courses: dict[int, Sequence[RunStages | ReadExit]] = {}
        self.onward: Onward | None = None
        self.back: tuple[Lane, int] | None = None
        self._turn = 0
        round_robin = balancer == "round-robin"
        self._choose, self._foresee = (self._next, self._whose_turn) if round_robin else (self._least_loaded,) * 2
        self.on_arrival = (self.arrive,)
        self._on_return = (self._returned,)

    @property
    def recodes(self) -> Pair | None:
        """(split, codec) of features that go on to the next tier."""
        return None if self.onward is None else (self.onward.split, self.onward.codec)

    def course(self, split: int) -> Sequence[RunStages | ReadExit]:
        """What is done with features of that split where no exits are to be looked at."""
        if split not in self._courses:
            self._courses[split] = course_behind(self.spec, split, self.until)
        return self._courses[split]

    def arrive(self, job: Job) -> None:
        """A payload is here."""
        job.arrive_s = now_s = self._env._now
        if job.give_up_s <= now_s:
            return  # refused on sight: nobody waits any more
        servers = self.servers
        server = servers[0] if len(servers) == 1 else self._choose()
        if server.down:
            self.lose(job)
        else:
            server.arrive(job)

    def _up(self) -> Sequence[Server]:
        return [server for server in self.servers if not server.down] or self.servers

    def _whose_turn(self) -> Server:
        up = self._up()
        return up[self._turn % len(up)]

    def _next(self) -> Server:
        server = self._whose_turn()
        self._turn += 1
        return server

    def _least_loaded(self) -> Server:
        return min(self._up(), key=lambda server: server.present)

    @property
    def down(self) -> bool:
        """Whether no server works."""
        return all(server.down for server in self.servers)

    def expect(self, job: Job, arrive_s: float) -> float:
        """Tries out a job that would arrive then, as things stand; returns when its reply would leave here."""
        start_s = self._foresee().start_s(arrive_s)
        if start_s is None:
            job.shed = True
            return arrive_s
        if start_s >= job.give_up_s:
            return start_s
        job.wait_s += start_s - arrive_s
        done_s = job.compute(self, start_s)
        job.answered_by = self.name
        if job.reading is not None or self.onward is None or done_s >= job.give_up_s:
            return done_s
        return self._expect_onward(job, self.onward, done_s)

    def _expect_onward(self, job: Job, onward: Onward, done_s: float) -> float:
        self._change(job, onward)
        tier = onward.tier
        device = job.task.request.device
        done_s = tier.expect(job, onward.uplink.peek(done_s, job.size_bytes, device) + job.times.rpc_s)
        assert tier.back is not None
        return tier.back[0].peek(done_s, tier.back[1], device)

    def shed(self, job: Job) -> None:
        """There is no room: a refusal goes back at once."""
        job.shed = True
        self._answer(job)

    def lose(self, job: Job) -> None:
        """Its server is down: the connection is reset, which takes no bytes, only the way back."""
        job.home.reset(job)

    def done(self, job: Job) -> None:
        """A server is through with a job: it is answered, goes on to the next tier, or was stopped."""
        if job.reading is not None:
            job.answered_by = self.name
            self._answer(job)
        elif self.onward is not None and job.give_up_s > self._env._now:
            self._forward(job, self.onward)

    def _answer(self, job: Job) -> None:
        if self.back is None:
            job.home.reply_leaves(job)
        else:
            lane, size_bytes = self.back
            lane.carry(size_bytes, job, self._on_return)

    def _returned(self, job: Job) -> None:
        job.home.reply_leaves(job)

    def _forward(self, job: Job, onward: Onward) -> None:
        self._change(job, onward)
        onward.uplink.carry(job.size_bytes, job, onward.tier.on_arrival, job.times.rpc_s)

    @staticmethod
    def _change(job: Job, onward: Onward) -> None:
        """Makes it what the next tier gets."""
        if job.split < onward.split:
            job.split, job.codec, job.size_bytes = onward.split, onward.codec, onward.size_bytes
        request = job.task.request
        job.times = onward.times(request.device).at(request.number)
