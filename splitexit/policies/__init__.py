"""Offload policies: what to do with the next request.

The interface, then the menu. One file and one line in the table add a policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from splitexit.decision import Observation, Outcome, Plan, Setting, Truth
from splitexit.registry import Registry

if TYPE_CHECKING:
    import numpy as np


class Policy(ABC):
    """Decides where the next request runs. One instance serves one device.

    reads      the fields of Observation that `decide` looks at; any other is unreadable
    revises    asked again after every exit that was read and did not fire
    stateless  `decide` is a function of the observation alone: no chance, no memory, nothing learned; what lets an
               engine work out beforehand what the policy does with each sample
    memory     the attributes that change after `prepare`: all that has to be saved for the policy to go on elsewhere
               (splitexit.memory): numpy arrays, generators, and what JSON has (dicts with strings for keys, no tuples)
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    revises: ClassVar[bool] = False
    stateless: ClassVar[bool] = False
    memory: ClassVar[tuple[str, ...]] = ()

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Called once before a run; raises InputError where the policy does not fit the setting."""

    @abstractmethod
    def decide(self, observation: Observation) -> Plan:
        """The plan for one request; asked when the device takes the request up."""

    def learn(self, outcome: Outcome) -> None:
        """Called in order of completion, possibly after later requests were decided."""


class OmniscientPolicy(Policy):
    """A policy that sees the truth: a yardstick for the simulator, refused by the live device."""

    @abstractmethod
    def decide_knowing(self, observation: Observation, truth: Truth) -> Plan:
        """The plan for one request, with the truth at hand."""

    def decide(self, observation: Observation) -> Plan:
        """Raises TypeError: without the truth there is nothing to decide."""
        raise TypeError(f"{type(self).__name__} decides only with the truth")


POLICIES: Registry[Policy] = Registry(
    "policy",
    {
        "local": "splitexit.policies.local:Local",
        "offload": "splitexit.policies.offload:Offload",
        "threshold": "splitexit.policies.threshold:Threshold",
        "neurosurgeon": "splitexit.policies.neurosurgeon:Neurosurgeon",
        "edgent": "splitexit.policies.edgent:Edgent",
        "edgent_dynamic": "splitexit.policies.edgent_dynamic:EdgentDynamic",
        "spinn": "splitexit.policies.spinn:Spinn",
        "jalad": "splitexit.policies.jalad:Jalad",
        "dads": "splitexit.policies.dads:Dads",
        "queue_aware": "splitexit.policies.queue_aware:QueueAware",
        "dynasplit": "splitexit.policies.dynasplit:Dynasplit",
        "ddnn": "splitexit.policies.ddnn:Ddnn",
        "clio": "splitexit.policies.clio:Clio",
        "splitee": "splitexit.policies.splitee:SplitEE",
        "splitee_s": "splitexit.policies.splitee_s:SplitEES",
        "splitee_s_oracle": "splitexit.policies.splitee_s:SplitEESOracle",
        "i_splitee": "splitexit.policies.i_splitee:ISplitEE",
        "ans": "splitexit.policies.ans:Ans",
        "hi_lcb": "splitexit.policies.hi_lcb:HiLcb",
        "random": "splitexit.policies.random:Random",
        "sac_d": "splitexit.policies.sac_d:SacD",
        "oracle": "splitexit.policies.oracle:Oracle",
    },
)
