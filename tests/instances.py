"""Small random problems for policies that plan, and what a plan really costs in them, by driving `infer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

import numpy as np

from splitexit.bundle import Exit, ModelSpec, Stage
from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.decision import EdgeLoad, ExitCheck, LinkEstimate, Observation, Outcome, Plan, Setting, Utility
from splitexit.inference import Decider, infer, infer_on_edge, outcome
from splitexit.policies import Policy
from splitexit.recording import ExitReadings, PairReadings, Part
from splitexit.results import EDGE
from splitexit.steps import Encode, Payload, ReadExit, Reply, Send
from tests import synthetic

CLASSES = 4
BATCHES, BATCH = 4, 50
"""How the 200 instances of a test are divided into cases."""


class Result(NamedTuple):
    """What becomes of one sample."""

    response_s: float
    exit: int
    right: bool
    answered_by: str
    size_bytes: int
    outcome: Outcome


def setting(rng: np.random.Generator, samples: int = 8, heads_s: float | None = None) -> Setting:
    """Two to four stages, some exits, codecs with and without loss at some splits, times of every order.

    Args:
        heads_s: what every head takes; random by default.
    """
    spec = model(rng)
    pairs = {
        (split, codec): bool(codec == "raw")
        for split in range(spec.num_stages)
        for codec in ("raw", "uint8", "fp16")
        if rng.random() < 0.6
    }
    codecs: dict[int, tuple[str, ...]] = {}
    for split, codec in sorted(pairs):
        codecs[split] = (*codecs.get(split, ()), codec)
    return Setting(
        spec=spec,
        device=times(rng, spec, pairs, 0.02, heads_s),
        edge=times(rng, spec, pairs, 0.005, heads_s),
        codecs=codecs,
        calibration=part(rng, spec, pairs, samples),
        link=LinkEstimate(10 ** rng.uniform(4.5, 7.5), 10 ** rng.uniform(-3, -1)),
        utility=Utility(),
        deadline_s=10 ** rng.uniform(-2, -0.5),
    )


def model(rng: np.random.Generator) -> ModelSpec:
    """Early exits at random stages, some of which add to the one before."""
    stages = int(rng.integers(2, 5))
    at = [k for k in range(1, stages) if rng.random() < 0.7] + [stages]
    adds = [0 < k < len(at) - 1 and rng.random() < 0.4 for k in range(len(at))]
    return ModelSpec(
        name="random",
        backbone={"name": "random"},
        input_shape=(3, 8, 8),
        num_classes=CLASSES,
        stages=tuple(Stage(100, 1, (4, 4, 4)) for _ in range(stages)),
        exits=tuple(Exit(k, 10, 1, {"name": "pooled"}, added) for k, added in zip(at, adds, strict=True)),
    )


def times(
    rng: np.random.Generator,
    spec: ModelSpec,
    pairs: Mapping[tuple[int, str], bool],
    mean_s: float,
    heads_s: float | None,
) -> Calibration:
    """Every part takes what it likes."""

    def draw() -> Distribution:
        return Distribution(tuple(sorted(rng.exponential(mean_s, 3).tolist())))

    return Calibration(
        machine={"name": "random"},
        stages=tuple(draw() for _ in spec.stages),
        exits=tuple(draw() if heads_s is None else Distribution.constant(heads_s) for _ in spec.exits),
        encode={pair: draw().scaled(0.1) for pair in pairs},
        decode={pair: draw().scaled(0.1) for pair in pairs},
        rpc=Rpc(int(rng.integers(0, 200)), 100, Distribution.constant(0.0)),
    )


def part(rng: np.random.Generator, spec: ModelSpec, pairs: Mapping[tuple[int, str], bool], samples: int) -> Part:
    """Random logits; behind `fp16` only the final exit was recorded, behind `raw` everything is as on the device."""
    label = rng.integers(0, CLASSES, samples).astype(np.uint16)

    def says(exit_: int) -> ExitReadings:
        outputs = rng.normal(size=(samples, CLASSES + (exit_ != spec.final_exit))).astype(np.float32)
        outputs[np.arange(samples), label] += 0.7 * (1 + exit_)
        return ExitReadings.of_outputs(outputs, CLASSES, keep=True)

    recorded = {}
    for (split, codec), lossless in pairs.items():
        there = {} if lossless else {e: says(e) for e in spec.exits_after(split)}
        if codec == "fp16":
            there = {spec.final_exit: there[spec.final_exit]}
        sizes = rng.integers(100, 100 + 10 ** int(rng.integers(2, 5)), samples).astype(np.uint32)
        recorded[split, codec] = PairReadings(sizes, there, lossless)
    exits = tuple(says(e) for e in range(len(spec.exits)))
    return Part("calibration", np.arange(samples, dtype=np.uint32), label, exits, recorded)


def leaving_at(exit_: int, spec: ModelSpec) -> tuple[ExitCheck, ...]:
    """Checks that surely leave there."""
    first = exit_
    while spec.exits[first].additive:
        first -= 1
    return (*(ExitCheck(e, "entropy", -1.0) for e in range(first, exit_)), ExitCheck(exit_, "entropy", 1e9))


def cut_short(of: Setting) -> Iterator[tuple[int, Plan]]:
    """Every exit at which the network may end, on either side of every cut."""
    spec = of.spec
    for exit_, stage in enumerate(spec.exit_stages):
        final = exit_ == spec.final_exit
        checks = () if final else leaving_at(exit_, spec)
        yield exit_, Plan(exits=checks)
        for split, codecs in of.codecs.items():
            if split < stage and (final or spec.exit_stages[checks[0].exit] > split):
                for codec in codecs:
                    pair = of.calibration.pair(split, codec)
                    if pair.lossless or all(check.exit in pair.exits for check in checks):
                        yield exit_, Plan(split=split, codec=codec, edge_exits=checks)


class _Given(Policy):
    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def decide(self, observation: Observation) -> Plan:
        return self.plan


def drive(plan: Plan, of: Setting, sample: int, link: LinkEstimate, wait_s: float = 0.0) -> Result:
    """Leads one sample of the calibration split through a plan, where every part takes its mean time."""
    decider, clock_s, sent_bytes = Decider(_Given(plan), of), 0.0, 0
    steps = infer(decider, inf)
    value: Any = None
    try:
        while True:
            step = steps.send(value)
            if isinstance(step, ReadExit):
                seconds = run_s(of.device, step.first, step.last) + of.device.exits[step.exit].mean
                value = of.calibration.readings(step.exit)[sample], seconds
            elif isinstance(step, Encode):
                compute_s = run_s(of.device, step.first, step.split)
                encode_s = of.device.encode[step.split, step.codec].mean
                size = of.calibration.payload_sizes(step.split, step.codec)[sample]
                value, seconds = Payload(size, compute_s, encode_s, 0.0), compute_s + encode_s
            else:
                assert isinstance(step, Send)
                sent_bytes = step.payload.size_bytes + of.edge.rpc.uplink_overhead_bytes
                value = edge(step, of, sample, link.round_trip_s(sent_bytes), wait_s)
                seconds = value.network_s + value.wait_s + value.compute_s
            clock_s += seconds
    except StopIteration as done:
        answer = done.value
    right = answer.reading.prediction == of.calibration.label[sample]
    return Result(clock_s, answer.reading.exit, right, answer.answered_by, sent_bytes, outcome(answer, clock_s))


def edge(send: Send, of: Setting, sample: int, network_s: float, wait_s: float) -> Reply:
    """What the edge answers."""
    seconds, said = of.edge.decode[send.split, send.codec].mean, None
    steps = infer_on_edge(of.spec, send.split, send.edge_exits, send.prior)
    try:
        while True:
            step = steps.send(said)
            assert isinstance(step, ReadExit)
            seconds += run_s(of.edge, step.first, step.last) + of.edge.exits[step.exit].mean
            said = of.calibration.edge_readings(send.split, send.codec, step.exit)[sample], 0.0
    except StopIteration as done:
        return Reply(done.value, network_s, wait_s, seconds, EdgeLoad(0, wait_s), EDGE)


def run_s(side: Calibration, first: int, last: int) -> float:
    """Mean seconds of stages first+1..last."""
    return sum(stage.mean for stage in side.stages[first:last])


def expected(plan: Plan, of: Setting, link: LinkEstimate, wait_s: float = 0.0) -> list[Result]:
    """Every sample's result."""
    return [drive(plan, of, sample, link, wait_s) for sample in range(len(of.calibration))]


def observe(policy: Policy, link: LinkEstimate, wait_s: float = 0.0, left_s: float = 1.0) -> Plan:
    """What a policy decides under these estimates."""
    fields = {"link": link, "edge_load": EdgeLoad(1, wait_s), "deadline_left_s": left_s}
    return policy.decide(Observation(**{name: value for name, value in fields.items() if name in policy.reads}))


def prepared(policy: Policy, of: Setting, **changes: Any) -> Policy:
    """The policy, ready for this setting with some fields changed."""
    policy.prepare(replace(of, **changes) if changes else of, np.random.default_rng(0))
    return policy


def of_batch(batch: int) -> Iterator[np.random.Generator]:
    """Of the 200 instances, those of one batch."""
    return (np.random.default_rng(seed) for seed in range(batch * BATCH, (batch + 1) * BATCH))


def mean_s(plan: Plan, of: Setting, link: LinkEstimate, wait_s: float = 0.0) -> float:
    """Expected response time."""
    return float(np.mean([result.response_s for result in expected(plan, of, link, wait_s)]))


def accuracy(plan: Plan, of: Setting) -> float:
    """Share of right answers."""
    return float(np.mean([result.right for result in expected(plan, of, of.link)]))


def any_link(rng: np.random.Generator) -> LinkEstimate:
    """A link of any rate."""
    return LinkEstimate(10 ** rng.uniform(4, 8), float(rng.exponential(0.03)))


def transfer(of: Setting, rate_bps: float, payload_bytes: int = 5000, **more: Any) -> Outcome:
    """What a device learns of an offload over a link of this rate."""
    bits = 8.0 * (payload_bytes + of.edge.rpc.uplink_overhead_bytes)
    split, codec = next((s, codecs[0]) for s, codecs in of.codecs.items())
    plan = Plan(split=split, codec=codec)
    seconds = of.link.rtt_s + bits / rate_bps
    told = {"answered_by": "edge", "transfer_s": seconds, "response_s": 2 * seconds} | more
    return Outcome(plan=plan, readings=(), payload_bytes=payload_bytes, **told)


def chain(model: ModelSpec, rate_bps: float = 8e6) -> Setting:
    """All stages alike on both sides; fp32 features can be sent anywhere and shrink with depth."""
    pairs = {(split, "raw"): 4000 >> split for split in range(model.num_stages)}
    part = synthetic.recording(model, pairs=pairs).calibration
    takes = synthetic.calibration(model, stage=0.01, head=0.0001, codec=0.0, pairs=list(pairs))
    spec = setting(np.random.default_rng(0))
    codecs = dict.fromkeys(range(model.num_stages), ("raw",))
    link = LinkEstimate(rate_bps, 0.01)
    return replace(spec, spec=model, device=takes, edge=takes, codecs=codecs, calibration=part, link=link)
