"""The simulator as a Gymnasium environment: whoever steps it decides."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from splitexit.actor import FEATURES, Action, Menu, View, actions_of
from splitexit.codecs import canonical
from splitexit.decision import Plan
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.results import Completion
from splitexit.rl.reward import Accuracy, AccuracyOf, Reward
from splitexit.scenario import load
from splitexit.sim.stepped import Question, decisions

Array = np.ndarray[Any, Any]
PartName = Literal["calibration", "test"]


class OffloadEnv(gymnasium.Env[Array, np.int64]):
    """One step is the decision of one request; an episode is one simulated run of the scenario.

    The run is that of `splitexit simulate`, with every device asking the environment: where several devices or
    overlapping requests are in play, steps come in the order in which requests are taken up, and info["device"] says
    whose it is.

    Observation: float32 (7,) in 0..1, what the device measures (splitexit.actor.FEATURES names, scales and clips).
    Action: index into `actions`, every valid triple of exit, split and codec.
    Reward: the sum over the requests that were answered since the last step (splitexit.rl.reward); usually that is the
    one just decided, but a device may take up the next request while it awaits a reply. Summed over an episode, every
    request counts once. info["rewards"] says whose they are, as (device, request, reward).
    Masks: info["action_mask"] (int8) and `action_masks()` (bool): an offload whose payload could not leave in time is
    masked. Taken all the same, it is carried out: nothing is sent, and the device falls back.
    An episode terminates with the last answer; its last observation is then repeated.

    `reset(seed=...)` seeds all further runs; `reset(options={"seed": n})` makes this one the run of `simulate` with
    seed n.

    Args:
        scenario: a scenario file, or an experiment.
        part: what requests are drawn from. Train on the calibration split, evaluate on the test split.
        accuracy: `expected` or `realised`, see splitexit.rl.reward.Accuracy; the expected one is always that of the
            calibration split.
        time_weight, miss_weight: of the reward.
        codecs: only these codecs are actions; by default all that were recorded and calibrated.
        requests: per device and episode, instead of the scenario's.

    Raises:
        InputError: the scenario cannot be read, its groups offer different codecs, or nothing would ever be asked.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own declaration is no ClassVar

    def __init__(
        self,
        scenario: Path | str | Experiment,
        *,
        part: PartName = "calibration",
        accuracy: AccuracyOf = "expected",
        time_weight: float = 0.3,
        miss_weight: float = 1.0,
        codecs: Sequence[str] | None = None,
        requests: int | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "part": part,
            "accuracy": accuracy,
            "time_weight": time_weight,
            "miss_weight": miss_weight,
        }
        given |= {"scenario": scenario, "codecs": codecs, "requests": requests}
        # So that tools can make another one of it; the environment needs no entry in Gymnasium's registry for that.
        self.spec = EnvSpec("splitexit/Offload-v0", f"{__name__}:{type(self).__name__}", kwargs=given)
        opened = scenario if isinstance(scenario, Experiment) else Experiment.open(load(scenario))
        self.experiment = opened.on_part(part)
        self.actions = _common_actions(self.experiment, codecs)
        self.action_space = spaces.Discrete(len(self.actions))
        self.observation_space = spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self._settings = [self.experiment.setting(group) for group in self.experiment.groups]
        self._menus = [Menu(setting, self.actions) for setting in self._settings]
        self._views = [View(setting.deadline_s) for setting in self._settings]
        self._accuracy = Accuracy(self.experiment.recording.calibration, accuracy)
        self._reward, self._requests = Reward(time_weight, miss_weight), requests
        self._run: Generator[Question, Plan, None] | None = None
        self._answered: list[tuple[int, int, float]] = []
        self._mask = np.ones(len(self.actions), bool)
        self._group = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begins a run and stops it at its first decision."""
        super().reset(seed=seed)
        self.close()
        drawn = int(self.np_random.integers(2**63))
        run_seed = int((options or {}).get("seed", drawn))
        self._answered = []
        self._run = decisions(self.experiment, run_seed, self._requests, self._note)
        try:
            question = next(self._run)
        except StopIteration:
            raise InputError(f"{self.experiment.scenario.file}: no request ever arrives, so nothing is asked") from None
        return self._asked(question)

    def step(self, action: np.int64 | int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Carries out an action and goes on to the next decision; raises RuntimeError where there is no run."""
        if self._run is None:
            raise RuntimeError("reset() comes first")
        self._answered = []
        terminated = False
        try:
            self._observed, info = self._asked(self._run.send(self._menus[self._group].plans[int(action)]))
        except StopIteration:
            self._run, terminated = None, True
            info = self._info | {"rewards": tuple(self._answered)}
        return self._observed.copy(), sum(reward for *_, reward in self._answered), terminated, False, info

    def action_masks(self) -> Array:
        """bool (actions,): which actions make sense now (the name that sb3-contrib looks for)."""
        return self._mask.copy()

    def close(self) -> None:
        """Ends the run, if there is one."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def _note(self, row: Completion) -> None:
        deadline_s = self._settings[self.experiment.group(row.device).number].deadline_s
        reward = self._reward.of(self._accuracy.of(row), row.response_s, deadline_s)
        self._answered.append((row.device, row.request, reward))

    def _asked(self, question: Question) -> tuple[Array, dict[str, Any]]:
        self._group = group = self.experiment.group(question.device).number
        last_s = 0.0 if question.last is None else question.last.response_s
        self._observed = self._views[group](question.observation, last_s)
        self._mask = self._menus[group].mask(question.observation.deadline_left_s)
        self._info = {
            "action_mask": self._mask.astype(np.int8),
            "device": question.device,
            "request": question.request,
            "rewards": tuple(self._answered),
        }
        return self._observed.copy(), self._info


def _common_actions(experiment: Experiment, codecs: Sequence[str] | None) -> tuple[Action, ...]:
    wanted = None if codecs is None else [canonical(codec) for codec in codecs]
    first, *others = (actions_of(experiment.setting(group), wanted) for group in experiment.groups)
    for group, actions in zip(experiment.groups[1:], others, strict=True):
        if actions != first:
            raise InputError(
                f"the groups {experiment.groups[0].label!r} and {group.label!r} offer different codecs, so they cannot "
                "share one network; run `splitexit calibrate` on the machine that lacks some"
            )
    offered = {a.codec for a in actions_of(experiment.setting(experiment.groups[0])) if a.codec is not None}
    if unknown := sorted(set(wanted or ()) - offered):
        raise InputError(f"codec {', '.join(unknown)}: not on offer; expected some of {', '.join(sorted(offered))}")
    return first
