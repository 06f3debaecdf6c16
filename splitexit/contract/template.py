"""The files that `splitexit new policy` writes: a policy that works, its test, and a scenario that runs it."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from splitexit.errors import UsageError

POLICY = '''"""NAME: say here in a line what it does.

Scenarios name it as `NAME:CLASS`, from this folder or the working directory; from an installed package as
`your_package.NAME:CLASS`, or by an entry point in the group `splitexit.policy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, Le

from splitexit.decision import LinkEstimate, Observation, Outcome, Plan, Setting
from splitexit.policies import Policy

if TYPE_CHECKING:
    import numpy as np


class CLASS(Policy):
    """Sends a request where that should be answered sooner than here, and remembers how long the edge lets it wait.

    Hyper-parameters are keywords with types; a scenario gives them beside the name, and is told where they do not fit.

    Args:
        step: how much a new wait counts against those before it, above 0 and at most 1.
    """

    # What `decide` looks at; anything else in the observation is unreadable (splitexit.decision.Observation).
    reads: ClassVar[frozenset[str]] = frozenset({"link"})
    # What changes after `prepare`: all that has to be saved for it to go on elsewhere (splitexit.memory).
    memory: ClassVar[tuple[str, ...]] = ("_wait_s",)

    def __init__(self, *, step: Annotated[float, Gt(0), Le(1)] = 0.2) -> None:
        self.step = step  # stored unchanged, under the same name
        self._wait_s = 0.0
        self._local_s = 0.0
        self._options: list[tuple[float, float, Plan]] = []

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Once before a run: what may be known beforehand (splitexit.decision.Setting), and the only source of chance.

        Raise splitexit.errors.InputError where the policy does not fit the setting.
        """
        at_once = LinkEstimate(rate_bps=float("inf"), rtt_s=0.0)
        self._wait_s, self._local_s = 0.0, setting.local_s()
        pairs = [(split, codec) for split, codecs in setting.codecs.items() for codec in codecs]
        self._options = [
            (setting.offload_s(*pair, at_once), setting.payload_bytes(*pair), Plan(split=pair[0], codec=pair[1]))
            for pair in pairs
        ]

    def decide(self, observation: Observation) -> Plan:
        """For every request, when the device takes it up."""
        best_s, best = self._local_s, Plan()  # all of it on the device
        for seconds, size_bytes, plan in self._options:
            expected_s = seconds + self._wait_s + observation.link.round_trip_s(size_bytes)
            if expected_s < best_s:
                best_s, best = expected_s, plan
        return best

    def learn(self, outcome: Outcome) -> None:
        """When a request has ended, possibly after later ones were decided (splitexit.decision.Outcome)."""
        if outcome.plan.split is None:
            waited_s = 0.0  # nobody was asked: what was long ago counts less and less
        elif outcome.answered_by == "edge":
            waited_s = outcome.edge_wait_s
        else:
            waited_s = outcome.response_s  # no answer came
        self._wait_s += self.step * (waited_s - self._wait_s)
'''

TEST = '''"""The contract that every policy keeps, and what this one is for. Run it with `pytest TEST_FILE`."""

from __future__ import annotations

import numpy as np
from NAME import CLASS

from splitexit.contract import check_policy
from splitexit.contract.world import made_up
from splitexit.decision import LinkEstimate, Observation, Outcome, Plan


def test_contract() -> None:
    """Plans are possible, seeds decide everything, memory goes on elsewhere, ...: splitexit.contract.CHECKS."""
    check_policy(CLASS)
    check_policy(CLASS, step=1.0)


def test_a_fast_link_is_used_and_a_slow_one_is_not() -> None:
    policy = CLASS()
    policy.prepare(made_up().setting(), np.random.default_rng(0))
    assert policy.decide(Observation(link=LinkEstimate(rate_bps=1e9, rtt_s=0.0))).split is not None
    assert policy.decide(Observation(link=LinkEstimate(rate_bps=1e3, rtt_s=0.0))) == Plan()


def test_a_lost_answer_counts() -> None:
    policy, fast = CLASS(step=1.0), Observation(link=LinkEstimate(rate_bps=1e9, rtt_s=0.0))
    policy.prepare(made_up().setting(), np.random.default_rng(0))
    policy.learn(Outcome(policy.decide(fast), (), response_s=1.0, answered_by="fallback"))
    assert policy.decide(fast) == Plan()
'''

SCENARIO = """# CLASS beside others, on LTE.
#   splitexit compare SCENARIO_FILE     policy beside policy, simulated
#   splitexit demo SCENARIO_FILE        the same for real, without the oracle
name: STEM
bundle: BUNDLE
requests: 300
seed: 0

devices:
  hardware: raspberry-pi-3b-plus
  arrivals: {name: poisson, rate_hz: 10}
  policy: mine
  deadline_ms: 250

uplink: lte
downlink: lte
edge: {hardware: workstation-cpu}

policies:
  mine: {name: "NAME:CLASS", step: 0.2}
  local: local
  neurosurgeon: neurosurgeon
  oracle: oracle
"""


def policy_files(name: str, bundle: str) -> dict[str, str]:
    """File name -> content, for a policy of that name on that bundle.

    Raises UsageError for a name that is none for a module of its own.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(f"{name!r}: expected a name for a module: small letters, digits and _, e.g. my_policy")
    class_ = "".join(part.capitalize() for part in name.split("_"))
    words = {
        "TEST_FILE": f"test_{name}.py",
        "SCENARIO_FILE": f"{name}.yaml",
        "STEM": name.replace("_", "-"),
        "BUNDLE": bundle,
        "CLASS": class_,
        "NAME": name,
    }
    texts = {f"{name}.py": POLICY, f"test_{name}.py": TEST, f"{name}.yaml": SCENARIO}
    pattern = re.compile(rf"\b({'|'.join(words)})\b")
    return {file: pattern.sub(lambda found: words[found[0]], text) for file, text in texts.items()}


def require_free(name: str, folder: Path) -> None:
    """Raises UsageError where a module of that name is there already, elsewhere than in `folder`."""
    if name in sys.stdlib_module_names or _elsewhere(name, folder):
        raise UsageError(f"{name!r}: a Python module is called so already; choose another name")


def _elsewhere(name: str, folder: Path) -> bool:
    found = find_spec(name)
    return found is not None and (found.origin is None or Path(found.origin).parent != folder.resolve())
