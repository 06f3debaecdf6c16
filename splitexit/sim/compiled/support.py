"""What the compiled engine can do: decisions that depend on readings alone, queues with times known beforehand."""

from __future__ import annotations

from collections.abc import Iterator

from splitexit.experiment import Experiment
from splitexit.fleet import Group
from splitexit.inference import Decider
from splitexit.links import Fifo, Link
from splitexit.links.constant import Constant
from splitexit.links.sharing import Sharing
from splitexit.scenario.events import EdgeDown, Leave


def supports(experiment: Experiment, policy: str) -> str:
    """Empty, or what the scenario uses that the compiled engine cannot do.

    Raises:
        InputError: the policy does not fit the scenario.
    """
    for group in experiment.groups:
        if reason := unpredictable(experiment.decider(policy, 0, group.first)):
            return f"the policy {policy!r} {reason}"
    return next(_beyond(experiment), "")


def unpredictable(decider: Decider) -> str:
    """Why the policy's decisions cannot be known before the queues are; empty where they can."""
    policy = decider.policy
    if decider.omniscient is not None:
        return "looks at the truth"
    if decider.watches:
        return f"looks at {', '.join(sorted(policy.reads - {'readings'}))}"
    if policy.stateless:
        return ""
    if decider.learns:
        return "learns from what it hears"
    return "remembers, and is asked again after every exit" if policy.revises or policy.reads else ""


def _beyond(experiment: Experiment) -> Iterator[str]:
    scenario = experiment.scenario
    if scenario.cloud is not None:
        yield "it has a cloud behind the edge"
    if scenario.edge.batching is not None:
        yield "its edge computes in batches"
    if any(isinstance(event, EdgeDown) for event in scenario.events):
        yield "its edge fails (edge-down)"
    for group in experiment.groups:
        yield from _beyond_in(experiment, group)
    for cell in experiment.cells:
        for name, queue in (
            ("uplink", experiment.cell_uplink(0, cell)),
            ("downlink", experiment.cell_downlink(0, cell)),
        ):
            if reason := _no_constant(queue):
                yield f"the {name} of access point {cell.label!r} {reason}"


def _beyond_in(experiment: Experiment, group: Group) -> Iterator[str]:
    if group.config.modes:
        yield f"the devices of {group.label!r} have modes"
    arrivals = group.config.arrivals.create()
    leaving = (event for event in experiment.scenario.events if isinstance(event, Leave))
    if arrivals.closed and any(event.on in (None, group.label) for event in leaving):
        yield f"the devices of {group.label!r} leave, and their arrivals are closed"
    if group.config.access_point is None:
        for name, queue in (
            ("uplink", experiment.uplink(0, group.first)),
            ("downlink", experiment.downlink(0, group.first)),
        ):
            if reason := _no_constant(queue):
                yield f"the {name} of {group.label!r} {reason}"


def _no_constant(queue: Fifo | Sharing) -> str:
    if isinstance(queue, Sharing):
        return "is shared by processor sharing"
    return "" if is_constant(queue.link) else "is no constant link without jitter and TCP"


def is_constant(link: Link) -> bool:
    """Whether a message holds it for a time that is proportional to its size, whenever it comes."""
    return isinstance(link, Constant) and type(link).finish_s is Constant.finish_s and link.plain
