"""SAC-d learns what brute force finds, keeps to its masks, and its weights go through a file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from torch import nn
from typer.testing import CliRunner

from splitexit.actor import Actor, actions_of, drawn, likeliest, logits, probabilities
from splitexit.cli import app, run
from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Outcome, Plan
from splitexit.errors import ArtifactError, InputError
from splitexit.experiment import Experiment
from splitexit.policies.sac_d import SacD as Policy
from splitexit.rl.reward import Reward
from splitexit.rl.sac_d import Recipe, SacD, masked_policy
from splitexit.rl.train import Ledger, Training
from splitexit.scenario import load
from splitexit.sim import simulate
from tests import synthetic, tiny_actor

RATES_BPS, LOADS = np.logspace(4.5, 7.5, 6), np.array([0.0, 0.3, 0.6, 0.9])
SENDS = {(k, bits): (0.010 * k, (9000 - 2000 * k) * bits) for k in range(3) for bits in (2, 8)}
STAYS = {e: 0.030 + 0.020 * e for e in range(3)}


class Contextual(gymnasium.Env[np.ndarray, np.int64]):
    """A grid of rates and CPU loads, drawn evenly; the action has no bearing on the next state.

    Actions: three exits on the device; three splits with 2 or 8 bits. At the highest load, the deepest exit is masked.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(len(STAYS) + len(SENDS))
        self.contexts = list(itertools.product(range(len(RATES_BPS)), range(len(LOADS))))

    def state(self, context: tuple[int, int]) -> np.ndarray:
        return np.array([context[0] / (len(RATES_BPS) - 1), context[1] / (len(LOADS) - 1)], np.float32)

    def mask(self, context: tuple[int, int]) -> np.ndarray:
        mask = np.ones(int(self.action_space.n), bool)
        mask[len(STAYS) - 1] = context[1] < len(LOADS) - 1
        return mask

    def worth(self, context: tuple[int, int], action: int) -> float:
        rate_bps, slower = RATES_BPS[context[0]], 1 / (1 - LOADS[context[1]])
        if action < len(STAYS):
            return Reward().of(0.60 + 0.12 * action, list(STAYS.values())[action] * slower, 0.1)
        (_, bits), (device_s, size_bits) = list(SENDS.items())[action - len(STAYS)]
        return Reward().of(0.80 if bits == 2 else 0.90, device_s * slower + size_bits / rate_bps + 0.015, 0.1)

    def oracle(self, context: tuple[int, int]) -> float:
        return max(self.worth(context, int(a)) for a in np.flatnonzero(self.mask(context)))

    def _see(self) -> tuple[np.ndarray, dict[str, Any]]:
        self.context = self.contexts[int(self.np_random.integers(len(self.contexts)))]
        return self.state(self.context), {"action_mask": self.mask(self.context).astype(np.int8)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 50
        return self._see()

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.mask(self.context)[int(action)], "a masked action was taken"
        reward, self.left = self.worth(self.context, int(action)), self.left - 1
        state, info = self._see()
        return state, reward, self.left == 0, False, info


QUICK = Recipe(steps=2000, gamma=0.0, hidden=32, warm_up=500, every=1, lr=5e-3)


@pytest.fixture(scope="module")
def learned() -> tuple[Contextual, SacD]:
    env = Contextual()
    training = Training(env, QUICK)
    training.run()
    assert (training.done, training.updates) == (2000, 1501)
    return env, training.learner


def test_it_comes_within_two_per_cent_of_the_oracle(learned: tuple[Contextual, SacD]) -> None:
    env, learner = learned
    oracle = sum(env.oracle(context) for context in env.contexts)
    found = sum(env.worth(c, learner.best(env.state(c), env.mask(c))) for c in env.contexts)
    fixed = [
        sum(env.worth(c, a if env.mask(c)[a] else 0) for c in env.contexts) for a in range(int(env.action_space.n))
    ]
    print(f"\n{found / oracle:.2%} of the oracle's reward; the best fixed action {max(fixed) / oracle:.2%}")
    assert oracle > 0
    assert max(fixed) < 0.9 * oracle, "a fixed action would do"
    assert found >= 0.98 * oracle


def test_without_temperature_it_is_greedy_on_the_smaller_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """α → 0, whatever the critics say: the actor's likeliest action becomes argmax min(Q1, Q2) over what is allowed."""
    rng = np.random.default_rng(0)
    learner = SacD(2, 3, Recipe(alpha=1e-6, lr=1e-2, hidden=32))
    with torch.no_grad():
        for values in (*learner.critics.weights, *learner.critics.biases):
            values.mul_(3.0)
    monkeypatch.setattr(learner, "_update_critics", lambda drawn_: None)
    states, masks = rng.random((40, 2), np.float32), rng.random((40, 3)) < 0.7
    masks[:, 1] |= ~masks.any(1)
    for _ in range(400):
        learner.update(batch(state=states, mask=masks))
    with torch.no_grad():
        worth = learner.critics(torch.from_numpy(states)).amin(0).numpy()
    best = [likeliest(*pair) for pair in zip(worth, masks, strict=True)]
    assert len(set(best)) == 3, "the critics hardly tell the states apart"
    lost = [worth[k, best[k]] - worth[k, learner.best(states[k], masks[k])] for k in range(len(states))]
    assert max(lost) < 0.01 * np.ptp(worth)
    assert learner.alpha == pytest.approx(1e-6)


def test_a_masked_action_has_no_probability() -> None:
    rng = np.random.default_rng(0)
    scores = (100 * rng.normal(size=(50, 7))).astype(np.float32)
    mask = rng.random((50, 7)) < 0.5
    mask[:, 3] |= ~mask.any(1)
    share, log_share = masked_policy(torch.from_numpy(scores), torch.from_numpy(mask))
    assert (share.numpy()[~mask] == 0.0).all()
    assert torch.isfinite(share * log_share).all()
    assert torch.allclose(share.sum(1), torch.ones(50))
    for row, allowed, of_torch in zip(scores, mask, share.numpy(), strict=True):
        found = probabilities(row, allowed)
        assert (found[~allowed] == 0.0).all()
        assert found == pytest.approx(of_torch, abs=1e-6)
        assert {drawn(row, allowed, rng) for _ in range(30)} <= set(np.flatnonzero(allowed).tolist())
        assert allowed[likeliest(row, allowed)]


def test_draws_follow_the_probabilities() -> None:
    scores, mask, rng = np.log([0.1, 0.2, 0.3, 0.4]), np.array([True, False, True, True]), np.random.default_rng(0)
    counts = np.bincount([drawn(scores, mask, rng) for _ in range(8000)], minlength=4) / 8000
    assert counts == pytest.approx([0.125, 0.0, 0.375, 0.5], abs=0.02)


def batch(**changes: Any) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    columns = {
        "state": rng.random((5, 2), np.float32),
        "mask": np.ones((5, 3), bool),
        "action": np.array([0, 1, 2, 0, 1]),
        "reward": np.arange(5, dtype=np.float32),
        "next_state": rng.random((5, 2), np.float32),
        "next_mask": np.array([[True, True, True], [True, False, True]] + [[False, True, False]] * 3),
        "last": np.array([False, False, False, True, True]),
    }
    return {name: torch.from_numpy(np.asarray(value)) for name, value in (columns | changes).items()}


def test_the_critics_goal_by_hand() -> None:
    learner = SacD(2, 3, Recipe(gamma=0.5, alpha=0.2, hidden=8))
    drawn_ = batch()
    goal = learner._goal(drawn_)
    for k in range(5):
        expected = float(drawn_["reward"][k])
        if not drawn_["last"][k]:
            state = drawn_["next_state"][k].numpy()
            share = probabilities(logits(learner.layers(), state), drawn_["next_mask"][k].numpy())
            with torch.no_grad():
                worth = learner.targets(drawn_["next_state"][k : k + 1]).amin(0)[0].numpy()
            there = share > 0
            expected += 0.5 * float((share[there] * (worth[there] - 0.2 * np.log(share[there]))).sum())
        assert float(goal[k]) == pytest.approx(expected, abs=1e-5)


def test_without_discount_only_the_reward_counts() -> None:
    assert SacD(2, 3, Recipe(gamma=0.0))._goal(batch()).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_temperature_falls_while_there_is_entropy_to_spare() -> None:
    """A fresh actor is nearly uniform, above its target; one action out of three leaves no entropy at all."""
    learner = SacD(2, 3, Recipe(hidden=8, lr=1e-2))
    for _ in range(5):
        learner.update(batch())
    assert learner.alpha < 1.0
    certain, mask = torch.tensor([[1.0, 0.0, 0.0]]), torch.ones((1, 3), dtype=torch.bool)
    assert float(learner._missing_entropy(certain, torch.zeros(1, 3), mask)) == pytest.approx(0.89 * math.log(3))
    mask[0, 1:] = False
    assert float(learner._missing_entropy(certain, torch.zeros(1, 3), mask)) == 0.0


def test_twins_are_two_networks() -> None:
    twins = SacD(2, 3, Recipe(hidden=8)).critics
    state = torch.rand(4, 2)
    for one in range(2):
        found = state
        for weight, bias in zip(twins.weights, twins.biases, strict=True):
            found = nn.functional.linear(found.relu() if found is not state else found, weight[one].T, bias[one, 0])
        assert torch.allclose(twins(state)[one], found, atol=1e-6)
    assert not torch.allclose(*twins(state))


def test_the_actor_in_numpy_is_the_one_in_torch() -> None:
    learner = SacD(7, 5, Recipe(hidden=16))
    before = learner.layers()
    state = np.random.default_rng(0).random(7, np.float32)
    assert logits(before, state) == pytest.approx(learner.actor(torch.from_numpy(state)).detach().numpy(), abs=1e-6)
    rng = np.random.default_rng(0)
    columns = {"state": rng.random((5, 7), np.float32), "next_state": rng.random((5, 7), np.float32)}
    masks = {name: np.ones((5, 5), bool) for name in ("mask", "next_mask")}
    learner.update(batch(**columns, **masks))
    assert logits(learner._live, state) == pytest.approx(
        learner.actor(torch.from_numpy(state)).detach().numpy(), abs=1e-6
    )
    assert not np.array_equal(before[0][0], learner.layers()[0][0])


def test_a_late_reward_finds_its_decision() -> None:
    ledger, found = Ledger(), list[dict[str, Any]]()
    for request in range(3):
        found += ledger.decided((0, request), np.full(1, request), np.ones(1), request)
    found += ledger.decided((1, 0), np.full(1, 9), np.ones(1), 9)
    assert found == []
    found += [*ledger.rewarded((0, 1), 1.5), *ledger.rewarded((1, 0), 9.5), *ledger.rewarded((0, 2), 2.5)]
    assert [(t["action"], t["reward"], t["next_state"].item()) for t in found] == [(1, 1.5, 2)]
    rest = list(ledger.ended())  # request 0 was never answered
    assert sorted((t["action"], t["reward"], t["last"]) for t in rest) == [(2, 2.5, True), (9, 9.5, True)]


def weights(learner: SacD) -> np.ndarray:
    parameters = [*learner.actor.parameters(), *learner.critics.parameters(), *learner.targets.parameters()]
    return np.concatenate([p.detach().numpy().ravel() for p in parameters])


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, steps=600, warm_up=100, every=4, hidden=8, gamma=0.9)
    whole = Training(Contextual(), recipe)
    whole.run()

    def stop(now: Any) -> None:
        if now.done == 400:
            raise KeyboardInterrupt

    path = tmp_path / "x.checkpoint"
    first = Training(Contextual(), recipe, path)
    with pytest.raises(KeyboardInterrupt):
        first.run(stop)
    second = Training(Contextual(), recipe, path)
    seen: list[int] = []
    second.run(lambda now: seen.append(now.done))
    assert seen[0] > 300, "it began anew"
    assert np.array_equal(weights(whole.learner), weights(second.learner))
    assert whole.learner.alpha == second.learner.alpha
    with pytest.raises(ArtifactError, match="begun with other options"):
        Training(Contextual(), dataclasses.replace(recipe, gamma=0.5), path).run()
    with pytest.raises(ArtifactError, match="another scenario"):
        Training(Contextual(), recipe, path, {"scenario": "other"}).run()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        Training(Contextual(), recipe, path).run()


# The policy and its file.


@pytest.fixture
def world(tmp_path: Path) -> Experiment:
    return synthetic.experiment(tmp_path, requests=60)


def prepared(world: Experiment, path: Path, **arguments: Any) -> Policy:
    policy = Policy(weights=path, **arguments)
    policy.prepare(world.setting(), np.random.default_rng(0))
    return policy


def observation(**changes: Any) -> Observation:
    fields = {"link": LinkEstimate(8e6, 0.01), "cpu_load": 0.2, "edge_load": EdgeLoad(1, 0.01), "deadline_left_s": 0.9}
    return Observation(**(fields | changes))


def test_the_contract_tests_weights_are_what_their_command_writes(world: Experiment, tmp_path: Path) -> None:
    tiny_actor.actor(world.setting()).save(tmp_path / "new.safetensors")
    assert_equal(Actor.load(tmp_path / "new.safetensors"), Actor.load(tiny_actor.FILE))


def assert_equal(one: Actor, other: Actor) -> None:
    assert dataclasses.replace(one, layers=()) == dataclasses.replace(other, layers=())
    for (w, b), (v, c) in zip(one.layers, other.layers, strict=True):
        assert np.array_equal(w, v)
        assert np.array_equal(b, c)


def test_an_actor_goes_through_its_file(world: Experiment, tmp_path: Path) -> None:
    actor = tiny_actor.actor(world.setting(), actions_of(world.setting())[2:], seed=4)
    path = tmp_path / "deep" / "er" / "a.safetensors"
    actor.save(path)
    assert_equal(Actor.load(path), actor)
    assert list(path.parent.iterdir()) == [path], "a part was left behind"


def test_other_bounds_are_taken_from_the_file(world: Experiment, tmp_path: Path) -> None:
    actor = tiny_actor.actor(world.setting(), seed=16)
    wider = tuple(f._replace(low=f.low - 1, high=f.high + 9) for f in actor.features)
    for name, features in (("usual", actor.features), ("wider", wider)):
        dataclasses.replace(actor, features=features).save(tmp_path / name)
    usual, other = (prepared(world, tmp_path / name) for name in ("usual", "wider"))
    seen = [observation(link=LinkEstimate(rate, 0.01), cpu_load=load) for rate in (1e5, 1e7) for load in (0.0, 0.9)]
    assert [usual.decide(o) for o in seen] != [other.decide(o) for o in seen]


def test_the_last_response_matters(world: Experiment, tmp_path: Path) -> None:
    tiny_actor.actor(world.setting(), seed=16).save(tmp_path / "a")
    policy = prepared(world, tmp_path / "a")
    plans = set()
    for response_s in np.linspace(0.0, 2.0, 30):
        policy.learn(Outcome(Plan(), (), float(response_s), "device"))
        plans.add(policy.decide(observation()))
    assert len(plans) > 1


def test_it_never_sends_what_could_not_leave(world: Experiment, tmp_path: Path) -> None:
    for stochastic in (False, True):
        for seed in range(8):
            tiny_actor.actor(world.setting(), seed=seed).save(tmp_path / "a")
            policy = prepared(world, tmp_path / "a", stochastic=stochastic)
            assert all(policy.decide(observation(deadline_left_s=-0.1)).split is None for _ in range(10))


def test_another_model_or_codec_is_refused_in_one_line(world: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tiny_actor.actor(world.setting()).save(path)
    deeper = tmp_path / "deeper"
    deeper.mkdir()
    other = synthetic.experiment(deeper, model=synthetic.spec(4))
    with pytest.raises(InputError, match=r"a.safetensors: trained for synthetic \(3 exits\), not for synthetic \(4 ex"):
        prepared(other, path)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    model = synthetic.spec()
    one = synthetic.experiment(
        fewer,
        model=model,
        says=synthetic.recording(model, pairs={(0, "jpeg"): 900}),
        takes=synthetic.calibration(model, pairs=[(0, "jpeg")]),
        policies={"sac": {"name": "sac_d", "weights": str(path)}},
    )
    with pytest.raises(InputError, match=r"may choose exit 1 behind uint8@1, which is not on offer") as error:
        simulate(one, "sac", 0)
    assert "\n" not in str(error.value)


def broken(tmp_path: Path, world: Experiment, about: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """A file whose metadata and tensors differ from a good one's; None takes one away."""
    path = tmp_path / "b.safetensors"
    actor = tiny_actor.actor(world.setting())
    actor.save(path)
    good = {"format": 1, "model": "m", "weights_sha256": "", "exit_stages": [1], "made": {}}
    good |= {"actions": actor.actions, "features": actor.features}
    kept = load_tensors(path.read_bytes()) | tensors
    kept = {name: value for name, value in kept.items() if value is not None}
    path.write_bytes(save_tensors(kept, metadata={"splitexit": json.dumps(good | about)}))
    return path


WIDE = np.zeros((16, 9), np.float32)


@pytest.mark.parametrize(
    ("about", "tensors", "why"),
    [
        ({"format": 2}, {}, "format 2"),
        ({"actions": []}, {}, "5 logits|8 logits"),
        ({"actions": "all"}, {}, ""),
        ({"actions": [[0]]}, {}, ""),
        ({"actions": [[None, 0, "jpeg"]]}, {}, ""),
        ({"features": [["log10 link.rate_bps", 3, 9]]}, {}, "features"),
        ({"features": [[f[0], 1.0, 1.0] for f in tiny_actor.FEATURES]}, {}, "features"),
        ({"made": 3}, {}, ""),
        ({}, {"layer0.weight": WIDE}, "expected one that takes 7"),
        ({}, {"layer0.bias": np.full(16, np.nan, np.float32)}, "not finite"),
        ({}, {"layer0.weight": np.zeros((16, 7), np.float64)}, "a layer"),
        ({}, {"layer1.weight": None}, "tensors: found layer0.bias, layer0.weight, layer1.bias"),
        (
            {},
            {"layer0.weight": None, "layer0.bias": None, "layer1.weight": None, "layer1.bias": None},
            "logits|no tensors",
        ),
    ],
)
def test_a_broken_file_is_refused_in_one_line(
    world: Experiment, tmp_path: Path, about: dict[str, Any], tensors: dict[str, Any], why: str
) -> None:
    path = broken(tmp_path, world, about, tensors)
    with pytest.raises(ArtifactError, match=f"b.safetensors: not the weights of a sac_d policy .*({why})") as error:
        Actor.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64, save_tensors({"x": np.zeros(1, np.float32)})])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not the weights of a sac_d policy"):
        Actor.load(path)
    with pytest.raises(ArtifactError, match="no such weights; `splitexit train-policy`"):
        Actor.load(tmp_path / "nowhere.safetensors")


def test_weights_lie_relative_to_the_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"policies": {"mine": {"name": "sac_d", "weights": "learned/a.safetensors"}}, "requests": 30}
    world = synthetic.experiment(tmp_path, **changes)
    tiny_actor.actor(world.setting()).save(tmp_path / "learned" / "a.safetensors")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert len(simulate(Experiment.open(load(world.scenario.file)), "mine", 0)) == 30


# The command.


def train(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["train-policy", *map(str, arguments)])


def test_the_command_writes_weights_and_says_how_to_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scenario may name the weights before they are there; the last line's policy runs."""
    mine = {"local": "local", "mine": {"name": "sac_d", "weights": "runs/sac_d-synthetic.safetensors"}}
    world = synthetic.experiment(tmp_path, requests=50, policies=mine)
    monkeypatch.chdir(tmp_path)
    done = train("scenario.yaml", "--steps=1100", "--codec=jpeg", "--seed=3")
    assert done.exit_code == 0, done.output
    out = Path("runs/sac_d-synthetic.safetensors")
    assert done.stdout.splitlines()[-1] == (
        f"{out}: in scenario.yaml, under `policies:`, write  sac_d: {{name: sac_d, weights: {out}}}"
    )
    assert "1100 of 1100 decisions" in done.stderr
    assert not out.with_suffix(".checkpoint").exists()
    actor = Actor.load(out)
    assert {action.codec for action in actor.actions} == {None, "jpeg"}
    assert actor.made["recipe"]["seed"] == 3
    assert len(simulate(world, "mine", 0)) == 50
    assert run(["simulate", "scenario.yaml", "--policy=mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policies"]["mine"]["requests"] == 50


def test_ctrl_c_keeps_what_was_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = synthetic.experiment(tmp_path, requests=50)
    learn = Training._learn

    def stop_at(step: int) -> None:
        def interrupted(self: Training) -> None:
            if self.done == step:
                raise KeyboardInterrupt
            learn(self)

        monkeypatch.setattr(Training, "_learn", interrupted)

    out = tmp_path / "w.safetensors"
    options = (world.scenario.file, "--steps=1500", f"--out={out}")
    stop_at(20)
    first = train(*options)
    assert first.exit_code == 130
    assert "before anything was learned; the same command begins again" in first.stderr
    assert not out.exists()
    stop_at(1200)
    second = train(*options)
    assert second.exit_code == 130
    assert "interrupted after 1200 decisions; the same command goes on" in second.stderr
    assert Actor.load(out).made["decisions"] == 1200
    monkeypatch.setattr(Training, "_learn", learn)
    third = train(*options)
    assert third.exit_code == 0, third.output
    assert "150 of 1500" not in third.stderr, "it began anew"
    assert Actor.load(out).made["decisions"] == 1500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out=weights.bin"], "--out weights.bin: expected a file that ends in .safetensors"),
        (["--accuracy=guessed"], "--accuracy 'guessed': expected 'expected' or 'realised'"),
        (["--codec=png"], "codec png: not on offer; expected some of jpeg, uint8"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = synthetic.experiment(tmp_path)
    assert run(["train-policy", str(world.scenario.file), *options]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
