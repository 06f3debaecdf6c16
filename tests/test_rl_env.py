"""The simulator as an environment: it is the simulator, it shows what a device can measure, and it rewards as said."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from splitexit.actor import FEATURES, Action, Actor, Menu, View, actions_of, plan_of
from splitexit.calibration import Distribution
from splitexit.decision import EdgeLoad, ExitCheck, LinkEstimate, Observation, Plan, Setting
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.recording import ExitReadings, PairReadings, Part, Recording
from splitexit.results import EDGE, FALLBACK, Completion
from splitexit.rl.env import OffloadEnv
from splitexit.rl.reward import Accuracy, Reward
from splitexit.sim import simulate
from splitexit.sim.stepped import decisions
from splitexit.streams import POLICY, stream
from tests import synthetic, tiny_actor, topologies


def world(folder: Path, **changes: Any) -> Experiment:
    return synthetic.experiment(folder, **{"requests": 40, **changes})


def with_policy(experiment: Experiment, path: Path, **arguments: Any) -> Experiment:
    """The same with a policy `sac_d` whose weights lie at `path`."""
    from splitexit.scenario import Spec

    spec = Spec("policy", "sac_d", {"weights": path, "stochastic": False, **arguments})
    policies = {**experiment.scenario.policies, "sac_d": spec}
    scenario = experiment.scenario.model_copy(update={"policies": policies})
    return dataclasses.replace(experiment, scenario=scenario)


def finish(env: OffloadEnv, actor: Actor, **reset: Any) -> tuple[list[Action], float]:
    """Runs an episode under the likeliest actions; what was done, and the sum of rewards."""
    state, _ = env.reset(**reset)
    done, total, terminated = [], 0.0, False
    while not terminated:
        action = actor.best(state, env.action_masks())
        done.append(env.actions[action])
        state, reward, terminated, truncated, _ = env.step(action)
        assert not truncated
        total += reward
    return done, total


@pytest.mark.parametrize("skip_render_check", [False, True])
def test_gymnasium_finds_nothing_wrong(tmp_path: Path, skip_render_check: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(OffloadEnv(world(tmp_path)), skip_render_check=skip_render_check)


def test_a_twin_is_made_from_its_spec(tmp_path: Path) -> None:
    env = OffloadEnv(str(world(tmp_path).scenario.file), codecs=["jpeg"], requests=5)
    assert env.spec is not None
    twin = env.spec.make().unwrapped
    assert isinstance(twin, OffloadEnv)
    assert twin.actions == env.actions
    assert np.array_equal(twin.reset(seed=1)[0], env.reset(seed=1)[0])


@pytest.mark.parametrize("seed", range(12))
def test_stopping_at_decisions_changes_nothing(tmp_path: Path, seed: int) -> None:
    """Rows equal to the last bit, whatever the devices share and whatever goes wrong."""
    topologies.write_bundle(tmp_path)
    experiment = topologies.opened(tmp_path, topologies.draw(seed))
    actor, chosen = tiny_actor.actor(experiment.setting(), seed=16), set[int]()
    actor.save(tmp_path / "actor.safetensors")
    experiment = with_policy(experiment, tmp_path / "actor.safetensors", stochastic=True)
    chance = [stream(seed, POLICY, device) for device in range(experiment.total_devices)]
    menus = [Menu(experiment.setting(group), actor.actions) for group in experiment.groups]
    views = [View(experiment.setting(group).deadline_s) for group in experiment.groups]
    rows: list[Completion] = []
    run = decisions(experiment, seed, None, rows.append)
    plan: Plan | None = None
    try:
        while True:
            question = next(run) if plan is None else run.send(plan)
            group = experiment.group(question.device).number
            seen = views[group](question.observation, 0.0 if question.last is None else question.last.response_s)
            mask = menus[group].mask(question.observation.deadline_left_s)
            action = actor.draw(seen, mask, chance[question.device])
            chosen.add(action)
            plan = menus[group].plans[action]
    except StopIteration:
        pass
    assert len(chosen) > 1
    assert repr(rows) == repr(simulate(experiment, "sac_d", seed))


def test_the_policy_does_what_the_environment_showed(tmp_path: Path) -> None:
    """Greedy in the environment and as a policy: the same choices, and the reward of the same rows."""
    experiment = world(tmp_path, uplink={"name": "markov", "mbps": [0.3, 20.0], "dwell_ms": 300.0}, requests=120)
    actor = tiny_actor.actor(experiment.setting(), seed=16)
    actor.save(tmp_path / "actor.safetensors")
    rows = simulate(with_policy(experiment, tmp_path / "actor.safetensors"), "sac_d", 5)
    env = OffloadEnv(experiment, part="test", accuracy="realised")
    done, total = finish(env, actor, options={"seed": 5})
    assert len(set(done)) > 2, "the choices hardly vary, so that nothing is compared"
    sent = {row.request: (row.split, row.codec) for row in rows if row.split >= 0}
    assert all(sent[k] == (a.split, a.codec) for k, a in enumerate(done) if k in sent)
    reward, deadline_s = Reward(), experiment.setting().deadline_s
    expected = sum(reward.of(row.prediction == row.label, row.response_s, deadline_s) for row in rows)
    assert total == pytest.approx(expected)


def test_requests_in_flight_are_rewarded_once_and_by_name(tmp_path: Path) -> None:
    """A slow link and a fast camera: the next decision comes before the last reward."""
    link = {"name": "constant", "mbps": 8.0, "delay_ms": 200.0}
    env = OffloadEnv(world(tmp_path, devices__arrivals__rate_hz=50.0, uplink=link, devices__count=2))
    _, info = env.reset(seed=0)
    send = env.actions.index(Action(2, 0, "jpeg"))
    decided, rewarded, total, late, terminated = [], Counter[tuple[int, int]](), 0.0, 0, False
    while not terminated:
        decided.append((info["device"], info["request"]))
        _, reward, terminated, _, info = env.step(send)
        late += decided[-1] not in [key[:2] for key in info["rewards"]]
        rewarded.update(key[:2] for key in info["rewards"])
        total += reward
        assert reward == pytest.approx(sum(own for *_, own in info["rewards"]))
    assert late > 10
    assert sorted(decided) == [(device, request) for device in range(2) for request in range(40)]
    assert rewarded == Counter(decided)
    assert total <= 80


def test_seeds(tmp_path: Path) -> None:
    env = OffloadEnv(world(tmp_path))

    def states(**reset: Any) -> list[list[float]]:
        found = [env.reset(**reset)[0]]
        for _ in range(20):
            found.append(env.step(1)[0])
        return [state.tolist() for state in found]

    first, second = states(seed=7), states()
    assert first != second, "every episode is another run"
    assert [states(seed=7), states()] == [first, second]
    assert states(options={"seed": 3}) == states(seed=1, options={"seed": 3}) != first


def test_a_run_is_ended_before_the_next_begins(tmp_path: Path) -> None:
    env = OffloadEnv(world(tmp_path))
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    env.reset(seed=0)
    run = env._run
    assert run is not None
    env.reset()
    assert run.gi_frame is None, "the run that was left still holds its world"
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)


def test_training_draws_from_the_calibration_split(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    parts = experiment.recording.parts
    assert experiment.on_part("calibration").recording.test is parts["calibration"]
    assert experiment.on_part("test").recording.test is parts["test"]
    assert OffloadEnv(experiment).experiment.recording.test is parts["calibration"]
    subset = dataclasses.replace(experiment, subset=(1, 2))
    assert len(subset.on_part("calibration").pool) == len(parts["calibration"])


def test_what_is_observed_by_hand() -> None:
    observation = Observation(
        link=LinkEstimate(1e6, 0.01), cpu_load=0.25, edge_load=EdgeLoad(9, 0.05), deadline_left_s=0.15
    )
    seen = View(0.2)(observation, 0.1)
    assert seen == pytest.approx([(6 - 3) / 6, (-2 + 4) / 5, 0.25, 1 / 2, 0.25 / 2, (0.75 + 1) / 2, 0.5 / 2])
    assert seen.dtype == np.float32


def test_what_is_observed_stays_within_its_bounds() -> None:
    extremes = itertools.product([1e-3, 1e12], [0.0, 100.0], [None, EdgeLoad(10**6, 99.0)], [-50.0, 1.0], [0.0, 99.0])
    for rate_bps, rtt_s, load, left_s, last_s in extremes:
        observation = Observation(
            link=LinkEstimate(rate_bps, rtt_s), cpu_load=1.0 + 1e-12, edge_load=load, deadline_left_s=left_s
        )
        seen = View(1.0)(observation, last_s)
        assert len(seen) == len(FEATURES)
        assert ((seen >= 0) & (seen <= 1)).all()


def test_an_offload_that_cannot_leave_in_time_is_masked(tmp_path: Path) -> None:
    """Three stages of 10 ms: at split 1 the payload leaves after 10 ms, and the fallback needs 10 ms more."""
    setting = world(tmp_path).setting()
    menu = Menu(setting, (Action(0), Action(2), Action(2, 0, "jpeg"), Action(2, 1, "uint8")))
    needs = [-math.inf, -math.inf, setting.fallback_s[0], 0.010 + setting.fallback_s[1]]
    assert needs[2:] == pytest.approx([0.010, 0.010 + 0.0])  # exit 0 lies behind stage 1
    for left_s in (-1.0, 0.0, 0.005, 0.0101, 0.5):
        assert menu.mask(left_s).tolist() == [left_s > need for need in needs]


def test_masks_in_the_environment(tmp_path: Path) -> None:
    """A device that cannot keep up soon has no time left to send; what is masked may be taken all the same."""
    takes = synthetic.calibration(synthetic.spec(), stage=0.2)
    env = OffloadEnv(world(tmp_path, takes=takes))
    _, info = env.reset(seed=0)
    masks, terminated = [info["action_mask"]], False
    while not terminated:
        assert env.action_masks().tolist() == info["action_mask"].astype(bool).tolist()
        _, _, terminated, _, info = env.step(len(env.actions) - 1)
        masks.append(info["action_mask"])
    local = [action.split is None for action in env.actions]
    assert masks[0].all()
    assert masks[-1].astype(bool).tolist() == local


def test_actions_are_every_valid_triple(tmp_path: Path) -> None:
    setting = world(tmp_path).setting()
    local = {Action(0), Action(1), Action(2)}
    jpeg = {Action(e, 0, "jpeg") for e in range(3)}
    assert set(actions_of(setting)) == local | jpeg | {Action(1, 1, "uint8"), Action(2, 1, "uint8")}
    assert set(actions_of(setting, ["jpeg"])) == local | jpeg
    for action in actions_of(setting):
        plan_of(action, setting.spec).check(setting.spec)


def test_only_recorded_exits_answer_behind_a_lossy_codec(tmp_path: Path) -> None:
    model = synthetic.spec()
    says = synthetic.recording(model)
    for part in says.parts.values():
        pair = part.pairs[1, "uint8"]
        part.pairs[1, "uint8"] = PairReadings(pair.payload_bytes, {2: pair.exits[2]})
        part.pairs[0, "jpeg"] = PairReadings(part.pairs[0, "jpeg"].payload_bytes, lossless=True)
    found = actions_of(world(tmp_path, model=model, says=says).setting())
    assert [action for action in found if action.codec == "uint8"] == [Action(2, 1, "uint8")]
    assert [action.exit for action in found if action.codec == "jpeg"] == [0, 1, 2]


def test_plans_of_actions() -> None:
    always, never = -1.0, 2.0
    model = synthetic.spec(4)
    assert plan_of(Action(3), model) == Plan()
    assert plan_of(Action(1), model) == Plan(exits=(ExitCheck(1, "max_prob", always),))
    assert plan_of(Action(3, 1, "uint8"), model) == Plan(split=1, codec="uint8")
    assert plan_of(Action(2, 1, "raw"), model) == Plan(
        split=1, codec="raw", edge_exits=(ExitCheck(2, "max_prob", always),)
    )
    exits = [dataclasses.replace(exit_, additive=e in (1, 2)) for e, exit_ in enumerate(model.exits)]
    adding = dataclasses.replace(model, exits=tuple(exits))
    plan = plan_of(Action(2, 1, "raw"), adding)
    plan.check(adding)
    assert plan.exits == (ExitCheck(0, "max_prob", never),)
    assert plan.edge_exits == (ExitCheck(1, "max_prob", never), ExitCheck(2, "max_prob", always))


def test_every_action_is_carried_out(tmp_path: Path) -> None:
    """On a link without bound and in time, an answer comes from the exit and the place that the action names."""
    experiment = world(tmp_path, devices__deadline_ms=10_000.0)
    setting = experiment.setting()
    for action in actions_of(setting):
        rows: list[Completion] = []
        run = decisions(experiment, 0, 3, rows.append)
        next(run)
        with pytest.raises(StopIteration):
            while True:
                run.send(plan_of(action, setting.spec))
        for row in rows:
            assert (row.exit, row.split if row.split >= 0 else None, row.codec or None) == action


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codecs": ["png"]}, "codec png: not on offer; expected some of jpeg, uint8"),
        ({"codecs": ["nonesuch"]}, "nonesuch"),
    ],
)
def test_codecs_that_are_not_on_offer(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OffloadEnv(world(tmp_path), **changes)


def test_without_requests_there_is_nothing_to_decide(tmp_path: Path) -> None:
    away = [{"kind": "leave", "at_s": 0}]
    with pytest.raises(InputError, match="nothing is asked"):
        OffloadEnv(world(tmp_path, events=away)).reset(seed=0)


def test_reward_by_hand() -> None:
    reward = Reward()
    assert reward.of(0.9, 0.05, 0.1) == pytest.approx(0.9 - 0.3 * 0.5)
    assert reward.of(0.9, 0.1, 0.1) == pytest.approx(0.9 - 0.3)  # exactly in time
    assert reward.of(0.9, 0.15, 0.1) == pytest.approx(0.9 - 0.45 - 1)
    assert reward.of(0.0, 9.0, 0.1) == pytest.approx(-0.6 - 1)
    assert Reward(0.0, 0.5).of(1.0, 9.0, 0.1) == pytest.approx(0.5)


def row(**columns: Any) -> Completion:
    blank = dict.fromkeys(Completion._fields, 0)
    return Completion(**{**blank, "codec": "", "split": -1, "answered_by": "device", **columns})


def test_accuracy_is_that_of_what_answered() -> None:
    def says(right: int) -> ExitReadings:
        blank = np.zeros(4, np.float32)
        return ExitReadings(np.array([1] * right + [0] * (4 - right), np.uint16), blank, blank, blank)

    size = np.ones(4, np.uint32)
    pairs = {(0, "jpeg"): PairReadings(size, {1: says(3)}), (0, "png"): PairReadings(size, lossless=True)}
    part = Part("calibration", np.arange(4), np.ones(4, np.uint16), (says(1), says(4)), pairs)
    expected = Accuracy(part, "expected")
    assert expected.of(row(exit=0)) == 0.25
    assert expected.of(row(exit=1, split=0, codec="jpeg", answered_by=EDGE)) == 0.75
    assert expected.of(row(exit=1, split=0, codec="png", answered_by=EDGE)) == 1.0
    assert expected.of(row(exit=0, split=0, codec="jpeg", answered_by=FALLBACK)) == 0.25
    realised = Accuracy(part, "realised")
    assert [realised.of(row(prediction=2, label=label)) for label in (1, 2)] == [0.0, 1.0]


# The limits of SAC-d's reward, found by brute force over expected times: what a policy that has learned all would do.

PAIRS = {(0, "raw"): 12_288, (1, "uint8"): 4_000, (1, "raw"): 16_000, (2, "uint8"): 1_000, (2, "raw"): 4_000}


def graded() -> Recording:
    """Deeper is better, and so are more bits: right for 40, 55 and 70 % of the samples on the device, for 5 points
    less behind 8 bits."""
    model, samples = synthetic.spec(), 200
    says = synthetic.recording(model, samples, PAIRS)
    for part in says.parts.values():
        for e, share in enumerate((0.40, 0.55, 0.70)):
            _grade(part.exits[e], part.label, share)
            for (_, codec), pair in part.pairs.items():
                if e in pair.exits:
                    _grade(pair.exits[e], part.label, share - 0.05 * (codec == "uint8"))
    return says


def _grade(readings: ExitReadings, label: np.ndarray[Any, Any], share: float) -> None:
    right = np.arange(len(label)) < round(share * len(label))
    readings.prediction = np.where(right, label, (label + 1) % synthetic.CLASSES).astype(np.uint16)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A device that takes ten times as long as the edge."""
    model = synthetic.spec()
    takes = synthetic.calibration(model, Distribution.constant(0.010), 0.001, 0.0005, pairs=list(PAIRS))
    experiment = synthetic.experiment(
        tmp_path_factory.mktemp("graded"), model=model, says=graded(), takes=takes, policies={"local": "local"}
    )
    edge = synthetic.calibration(model, Distribution.constant(0.001), 0.0001, 0.0005, pairs=list(PAIRS))
    return dataclasses.replace(experiment.setting(), edge=edge)


def expected(setting: Setting, action: Action, link: LinkEstimate) -> tuple[float, float]:
    """Accuracy and response time to expect of an action, without queues."""
    stages, part = setting.exit_stages, setting.calibration
    if action.split is None:
        said, response_s = part.exits[action.exit], setting.device_s(stages[action.exit])
        response_s += setting.device.exits[action.exit].mean
    else:
        assert action.codec is not None
        said = part.pair(action.split, action.codec).exits[action.exit]
        response_s = setting.offload_s(action.split, action.codec, link) - setting.edge_s(action.split)
        response_s += sum(stage.mean for stage in setting.edge.stages[action.split : stages[action.exit]])
        response_s += setting.edge.exits[action.exit].mean
    return float((said.prediction == part.label).mean()), response_s


def best(setting: Setting, link: LinkEstimate, deadline_s: float, reward: Reward | None = None) -> Action:
    worth, actions = reward or Reward(), actions_of(setting)
    found = [expected(setting, action, link) for action in actions]
    return max(zip(actions, found, strict=True), key=lambda pair: worth.of(*pair[1], deadline_s))[0]


def test_limit_of_an_endless_rate(setting: Setting) -> None:
    """B → ∞, rtt → 0: everything on the edge, the last exit, all bits."""
    assert best(setting, LinkEstimate(1e15, 0.0), 0.1) == Action(2, 0, "raw")


def test_limit_of_no_rate(setting: Setting) -> None:
    """B → 0: nothing is sent, p = pos(e)."""
    for deadline_s in (0.05, 0.1, 1.0):
        assert best(setting, LinkEstimate(1e-3, 0.01), deadline_s).split is None


def test_limit_of_a_short_deadline(setting: Setting) -> None:
    """While only the fastest triple meets the deadline, it is taken, however inaccurate it is.

    At Tmax → 0 itself the cap of 2 in the reward hides how late an answer is: all lose the same, and the most accurate
    triple is taken.
    """
    link = LinkEstimate(2e6, 0.015)
    times = sorted((expected(setting, action, link)[1], action) for action in actions_of(setting))
    (fastest_s, fastest), (second_s, _) = times[:2]
    assert fastest_s < second_s
    assert best(setting, link, (fastest_s + second_s) / 2) == fastest
    accuracy = {action: expected(setting, action, link)[0] for action in actions_of(setting)}
    assert accuracy[best(setting, link, 1e-9)] == max(accuracy.values())
    assert accuracy[fastest] < max(accuracy.values())


def test_limit_of_a_long_deadline(setting: Setting) -> None:
    """Tmax → ∞ and w_T = 0: the most accurate triple."""
    link = LinkEstimate(2e6, 0.015)
    chosen = best(setting, link, 1e9, Reward(time_weight=0.0))
    assert expected(setting, chosen, link)[0] == max(expected(setting, a, link)[0] for a in actions_of(setting))
