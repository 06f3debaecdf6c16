"""Modes of a device: what a request takes in each, in time and energy, and who may choose among them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from splitexit import energy
from splitexit.calibration import Distribution
from splitexit.check import check_scenario
from splitexit.cli import run
from splitexit.compare import compare, run_once
from splitexit.corun import utilisations
from splitexit.decision import ExitCheck, Observation, Plan, Setting
from splitexit.energy import Model
from splitexit.errors import InputError, PolicyError, ScenarioError, UsageError
from splitexit.experiment import Experiment
from splitexit.fleet import require_live, require_single
from splitexit.hardware import Power
from splitexit.inference import Decider
from splitexit.outlook import Outlook
from splitexit.policies import Policy
from splitexit.policies.dynasplit import Dynasplit
from splitexit.policies.oracle import candidates, in_every_mode
from splitexit.report.stored import StoredRun
from splitexit.results import SCHEMA, WITH_MODES, Completion, column, rows_sha256, to_table
from splitexit.scenario import dump, load
from splitexit.sim import compiled, simulate
from splitexit.sim.regret import judged
from splitexit.sim.truth import LookAhead
from tests import random_settings, synthetic

STAGE_S, HEAD_S, CODEC_S = 0.010, 0.001, 0.002
SLOW, FAST = 3.0, 0.5
"""What the modes of these names take, relative to the device itself."""
FACTORS = {None: 1.0, "slow": SLOW, "fast": FAST}
ENERGY = {"compute_w": 6.0, "idle_w": 2.5, "radio": "wifi"}
COMPUTE_W = {None: 6.0, "slow": 2.9, "fast": 15.0}
MODES = {
    "slow": {"hardware": "slow.json", "energy": {"compute_w": 2.9, "idle_w": 2.5}},
    "fast": {"hardware": "fast.json", "energy": {"compute_w": 15.0}},
}
RARE = {"name": "periodic", "rate_hz": 0.2}


class Fixed(Policy):
    """One plan in one mode."""

    def __init__(self, *, mode: str | None = None, split: int | None = None, leave: bool = False) -> None:
        self.mode, self.split, self.leave = mode, split, leave

    def decide(self, observation: Observation) -> Plan:
        codec = None if self.split is None else ("jpeg", "uint8")[self.split]
        return Plan((ExitCheck(0, "max_prob", 0.0),) if self.leave else (), self.split, codec, mode=self.mode)


class InTurn(Policy):
    """Every mode one request after the other, split and local."""

    def __init__(self) -> None:
        self._plans = [
            Plan((ExitCheck(0, "max_prob", 0.5),), split, codec, mode=mode)
            for split, codec in ((None, None), (1, "uint8"))
            for mode in (None, "slow", "fast")
        ]
        self._asked = 0

    def decide(self, observation: Observation) -> Plan:
        self._asked += 1
        return self._plans[self._asked % len(self._plans)]


class Revising(InTurn):
    """Another mode after every exit."""

    revises = True


def takes(factor: float = 1.0) -> Any:
    """The calibration of a mode."""
    return synthetic.calibration(synthetic.spec(), STAGE_S * factor, HEAD_S * factor, CODEC_S * factor)


def fixed(**arguments: Any) -> dict[str, Any]:
    """Such a policy in a scenario."""
    return {"name": "tests.test_modes:Fixed", **arguments}


def world(folder: Path, **changes: Any) -> Experiment:
    """A device with two modes, requests that never meet."""
    for name in MODES:
        takes(FACTORS[name]).save(folder / f"{name}.json")
    defaults: dict[str, Any] = {
        "requests": 20,
        "devices__modes": MODES,
        "devices__energy": ENERGY,
        "devices__arrivals": RARE,
        "policies": {"in-turn": {"name": "tests.test_modes:InTurn"}, "local": {"name": "local"}},
    }
    return synthetic.experiment(folder, takes=takes(), **(defaults | changes))


def rows_of(experiment: Experiment, policy: str, seed: int = 0) -> list[Completion]:
    return sorted(simulate(experiment, policy, seed))


@pytest.mark.parametrize("mode", FACTORS)
def test_a_request_takes_what_its_mode_takes(tmp_path: Path, mode: str | None) -> None:
    """Stages, heads and encoding; the edge and the network as ever."""
    policies = {
        "local": fixed(mode=mode),
        "leave": fixed(mode=mode, leave=True),
        "split": fixed(mode=mode, split=1),
        "usual": fixed(split=1),
    }
    experiment, factor = world(tmp_path, policies=policies), FACTORS[mode]
    for row in rows_of(experiment, "local"):
        assert row.device_compute_s == pytest.approx(factor * (3 * STAGE_S + HEAD_S), rel=1e-12)
        assert row.response_s == pytest.approx(row.device_compute_s, rel=1e-9)
        assert row.mode == (mode or "")
    for row in rows_of(experiment, "leave"):
        assert row.device_compute_s == pytest.approx(factor * (STAGE_S + HEAD_S), rel=1e-12)
    for row, usual in zip(rows_of(experiment, "split"), rows_of(experiment, "usual"), strict=True):
        assert row.device_compute_s == pytest.approx(factor * STAGE_S, rel=1e-12)
        assert row.encode_s == pytest.approx(factor * CODEC_S, rel=1e-12)
        assert row.network_s == pytest.approx(usual.network_s, rel=1e-9)
        assert row.edge_compute_s == pytest.approx(CODEC_S + 2 * STAGE_S + HEAD_S)
        parts = (row.device_compute_s, row.encode_s, row.network_s, row.edge_wait_s, row.edge_compute_s)
        assert row.response_s == pytest.approx(sum(parts))


@pytest.mark.parametrize("mode", FACTORS)
def test_a_fallback_is_as_slow_as_the_mode(tmp_path: Path, mode: str | None) -> None:
    """Who stops waiting when the fallback is due to begin, answers at the deadline."""
    lost = {"name": "constant", "mbps": 0.001, "delay_ms": 5.0}
    experiment = world(tmp_path, policies={"image": fixed(mode=mode, split=0)}, uplink=lost, requests=3)
    for row in rows_of(experiment, "image"):
        assert row.answered_by == "fallback"
        assert row.device_compute_s == pytest.approx(FACTORS[mode] * (STAGE_S + HEAD_S))
        assert row.response_s == pytest.approx(1.0, abs=1e-9)


def test_times_that_vary_are_the_same_draws_in_every_mode(tmp_path: Path) -> None:
    """So that modes differ by what they are, not by chance."""
    model, spread = synthetic.spec(), Distribution((0.005, 0.010, 0.030))
    experiment = world(tmp_path, policies={"usual": fixed(), "slow": fixed(mode="slow")})
    synthetic.calibration(model, spread).save(tmp_path / "bundle" / "calibration.json")
    synthetic.calibration(model, spread).slowed(2.0).save(tmp_path / "slow.json")
    experiment = Experiment.open(experiment.scenario)
    usual, slow = (rows_of(experiment, policy) for policy in ("usual", "slow"))
    assert len({row.device_compute_s for row in usual}) > 10
    assert [row.device_compute_s for row in slow] == pytest.approx([2 * row.device_compute_s for row in usual])


def test_who_chooses_no_mode_is_as_without_any(tmp_path: Path) -> None:
    """The same rows, with one more column."""
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    policies = {"threshold": synthetic.SCENARIO["policies"]["threshold"], "neurosurgeon": {"name": "neurosurgeon"}}
    there, none = (world(tmp_path / name, policies=policies, **more) for name, more in WITH_AND_WITHOUT.items())
    assert none.schema == SCHEMA
    assert there.schema == WITH_MODES
    for policy in policies:
        with_modes, without = (run_once(of, policy, 0).table for of in (there, none))
        assert with_modes.column_names == [*without.column_names, "mode"]
        assert rows_sha256(with_modes.drop_columns(["mode"])) == rows_sha256(without)
        assert pc.unique(with_modes["mode"]).to_pylist() == [""]


WITH_AND_WITHOUT: dict[str, dict[str, Any]] = {"with": {}, "without": {"devices__modes": {}}}


@pytest.mark.parametrize("mode", FACTORS)
def test_energy_is_that_of_the_mode_and_idle_as_ever(tmp_path: Path, mode: str | None) -> None:
    """compute_w of the mode while it computes, and idle_w of the device the rest of the time."""
    table = run_once(world(tmp_path, policies={"local": fixed(mode=mode)}), "local", 0).table
    busy_s, last_s = column(table, "device_compute_s").sum(), column(table, "done_s").max()
    by_hand = COMPUTE_W[mode] * busy_s + ENERGY["idle_w"] * (last_s - busy_s)
    assert column(table, "energy_j").sum() == pytest.approx(by_hand, rel=1e-9)


def test_energy_row_by_row_where_modes_alternate(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    table = to_table(simulate(experiment, "in-turn", 0), experiment.schema)
    models = [experiment.energy_model(group) for group in experiment.groups]
    parts = energy.parts(table.take(np.random.default_rng(0).permutation(len(table))), models)["compute"]
    order = energy.parts(table, models)["compute"]
    assert sorted(parts) == pytest.approx(sorted(order))
    for joules, row in zip(order, table.to_pylist(), strict=True):
        above_w = COMPUTE_W[row["mode"] or None] - 2.5
        assert joules == pytest.approx(above_w * (row["device_compute_s"] + row["encode_s"]))
    assert {row["mode"] for row in table.to_pylist()} == {"", "slow", "fast"}


def test_a_mode_of_unknown_power_says_so(tmp_path: Path) -> None:
    modes = MODES | {"slow": {"hardware": "slow.json"}}
    experiment = world(tmp_path, devices__modes=modes)
    table = run_once(experiment, "in-turn", 0).table
    unknown = pc.equal(table["mode"], "slow").to_numpy(zero_copy_only=False)
    assert np.isnan(column(table, "energy_j")[unknown]).all()
    assert np.isfinite(column(table, "energy_j")[~unknown]).all()
    (gap,) = experiment.energy_model(experiment.groups[0]).gaps
    assert gap == "nobody published the power of the mode 'slow': give devices.modes.slow.energy.compute_w"
    with pytest.raises(InputError, match="energy cannot be weighed: nobody published the power of the mode 'slow'"):
        experiment_with(experiment, {"d": {"name": "dynasplit"}}).decider("d", 0, 0)


def test_a_named_machine_brings_its_published_power(tmp_path: Path) -> None:
    experiment = world(tmp_path, devices__modes={"xavier": {"hardware": "jetson-xavier-nx"}})
    model = experiment.energy_model(experiment.groups[0])
    assert model.in_mode("xavier").power == Power(10.6, 2.5, "the scenario")
    assert experiment.setting().in_mode("xavier").device is experiment.mode_calibrations(experiment.groups[0])["xavier"]


def experiment_with(experiment: Experiment, policies: dict[str, Any]) -> Experiment:
    """The same with other policies."""
    path = experiment.scenario.file
    content = experiment.scenario.resolved() | {"policies": policies}
    path.write_text(dump(content))
    return Experiment.open(load(path))


# --- DynaSplit ----------------------------------------------------------------------------------------------


def with_modes(setting: Setting, rng: np.random.Generator) -> Setting:
    """One or two modes, slower or faster, thriftier or not; some cannot encode everything."""
    model = setting.energy
    assert isinstance(model, Model)
    assert model.power is not None
    modes = {}
    for name in ("a", "b")[: int(rng.integers(1, 3))]:
        power = replace(model.power, compute_w=model.power.idle_w + float(rng.exponential(4.0)))
        offered = {split: codecs[: int(rng.integers(0, len(codecs) + 1))] for split, codecs in setting.codecs.items()}
        modes[name] = replace(
            setting,
            device=setting.device.slowed(float(rng.uniform(0.2, 4.0))),
            codecs={split: codecs for split, codecs in offered.items() if codecs},
            energy=replace(model, power=power),
        )
    return replace(setting, modes=modes)


def configurations(setting: Setting, levels: tuple[float, ...]) -> list[Plan]:
    """Every mode with every pair and staying local, without exits and with all on the device at every level."""
    found = []
    for mode in (None, *setting.modes):
        offered = setting.in_mode(mode).codecs.items()
        for split, codec in [(None, None), *((s, c) for s, codecs in offered for c in codecs)]:
            last = setting.spec.num_stages - 1 if split is None else split
            found.append(Plan(split=split, codec=codec, mode=mode))
            for level in levels if last else ():
                checks = tuple(ExitCheck(e, "max_prob", level) for e in range(last))
                found.append(Plan(checks, split, codec, mode=mode))
    return found


def expected_s(plan: Plan, setting: Setting, link: Any, wait_s: float) -> float:
    """By the mode's own setting, which knows of no modes."""
    there = setting.in_mode(plan.mode)
    return float(Outlook.of([replace(plan, mode=None)], there).latency_s(link, wait_s)[0])


def joules(plan: Plan, setting: Setting, link: Any, wait_s: float) -> float:
    """Computing at the mode's power, and for the share that is sent, the radio of one such request."""
    there = setting.in_mode(plan.mode)
    every, model = Outlook.of([replace(plan, mode=None)], there), there.energy
    assert isinstance(model, Model)
    sent, found = float(every.sent[0]), (model.power.compute_w - model.power.idle_w) * float(every.device_s[0])
    if not sent:
        return found
    radio, bits, reply_s = model.radio, 8 * every.size_bytes[0] / sent, link.rtt_s + wait_s + every.edge_s[0] / sent
    moving = radio.send_j(bits, bits / link.rate_bps) + model.receive_j
    tail = radio.tail_w * (min(radio.tail_s, reply_s) + radio.tail_s)
    woken = radio.promotion_w * radio.promotion_s * (1 + (reply_s > radio.tail_s))
    return float(found + sent * (moving + tail + woken))


@pytest.mark.parametrize("seed", range(200))
def test_dynasplit_is_brute_force_over_split_and_mode(seed: int) -> None:
    """The least energy among those that are accurate and fast enough; else the fastest of the accurate ones."""
    rng = np.random.default_rng(seed)
    setting, lose = with_modes(random_settings.setting(rng), rng), float(rng.choice([0.0, 0.02, 0.2]))
    levels = (0.3, 0.6, 0.9)
    plans = configurations(setting, levels)
    accuracy = np.array([Outlook.of([plan], setting).accuracy[0] for plan in plans])
    plans = [plan for plan, of in zip(plans, accuracy, strict=True) if of >= accuracy.max() - lose]
    for _ in range(4):
        limit_s = float(rng.exponential(0.05))
        policy = Dynasplit(thresholds=list(levels), lose=lose, qos_ms=1e3 * limit_s)
        policy.prepare(setting, rng)
        observation = random_settings.observation(rng)
        load, link = observation.edge_load, observation.link
        wait_s = 0.0 if load is None else load.wait_s
        latency_s = np.array([expected_s(plan, setting, link, wait_s) for plan in plans])
        cost_j = np.array([joules(plan, setting, link, wait_s) for plan in plans])
        found = plans.index(policy.decide(observation))
        if (latency_s <= limit_s).any():
            assert latency_s[found] <= limit_s
            assert cost_j[found] == pytest.approx(cost_j[latency_s <= limit_s].min(), rel=1e-9)
        else:
            assert latency_s[found] == pytest.approx(latency_s.min(), rel=1e-9)


def test_every_mode_is_chosen_somewhere() -> None:
    """Otherwise the test above would say little."""
    chosen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        setting = with_modes(random_settings.setting(rng), rng)
        policy = Dynasplit(lose=0.2, qos_ms=float(rng.exponential(100.0)) + 1.0)
        policy.prepare(setting, rng)
        plan = policy.decide(random_settings.observation(rng))
        chosen.add((plan.mode, plan.split is None))
    assert {mode for mode, _ in chosen} == {None, "a", "b"}
    assert {local for mode, local in chosen if mode} == {True, False}


def test_dynasplit_takes_the_thrifty_mode_where_there_is_time_and_the_fast_one_where_there_is_none(
    tmp_path: Path,
) -> None:
    """Alone, 93 ms at 0.4 W above idle, 31 ms at 3.5 W, 15.5 ms at 12.5 W."""
    lost = {"name": "constant", "mbps": 0.001, "delay_ms": 5.0}
    policies = {
        name: {"name": "dynasplit", "thresholds": [], "lose": 1.0, "qos_ms": ms}
        for name, ms in (("loose", 1000.0), ("middle", 50.0), ("tight", 20.0), ("hopeless", 1.0))
    }
    experiment = world(tmp_path, policies=policies, uplink=lost)
    chosen = {name: {row.mode for row in simulate(experiment, name, 0)} for name in policies}
    assert chosen == {"loose": {"slow"}, "middle": {""}, "tight": {"fast"}, "hopeless": {"fast"}}
    comparison = compare(experiment, ["loose", "middle", "tight"], [0])
    spent = [comparison.summaries[name]["device_energy_mj_mean"] for name in policies if name != "hopeless"]
    assert spent == sorted(spent)
    assert comparison.rows.column_names[-1] == "mode"


# --- What the truth is ---------------------------------------------------------------------------------------


def test_the_oracle_knows_the_modes_and_cannot_be_beaten(tmp_path: Path) -> None:
    policies = {"oracle": {"name": "oracle"}, "in-turn": {"name": "tests.test_modes:InTurn"}}
    experiment = world(tmp_path, policies=policies, devices__arrivals={"name": "poisson", "rate_hz": 8.0}, requests=60)
    assert (column(judged(experiment, "oracle", 0).table, "regret") == 0.0).all()
    table = judged(experiment, "in-turn", 0).table
    assert (column(table, "regret") >= -1e-12).all()
    assert table.column_names[-3:] == ["mode", "regret", "switched"]
    plans = in_every_mode(experiment.setting())
    assert len(plans) == 3 * len(candidates(experiment.setting())) == len(set(plans))


def test_looking_ahead_leaves_the_device_in_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is best is found by trying everything, and nothing has changed behind it."""
    kept, found = LookAhead.best, []

    def best(self: LookAhead, plans: Any) -> Any:
        before = self._task.times
        by_hand = max(self.utility(plan) for plan in plans)
        assert self._task.times is before
        plan, worth = kept(self, plans)
        assert worth == pytest.approx(by_hand, abs=1e-12)
        found.append(plan.mode)
        return plan, worth

    monkeypatch.setattr(LookAhead, "best", best)
    experiment = world(tmp_path, policies={"oracle": {"name": "oracle"}})
    rows_of(experiment, "oracle")
    assert set(found) == {"fast"}


# --- What is refused -----------------------------------------------------------------------------------------


def test_a_plan_in_a_mode_that_is_not_there(tmp_path: Path) -> None:
    experiment = world(tmp_path, policies={"typo": fixed(mode="sloww"), "local": "local"})
    with pytest.raises(PolicyError, match=r"^plan: the device has no mode 'sloww'; it has slow, fast$"):
        simulate(experiment, "typo", 0)
    none = world(tmp_path, devices__modes={}, policies={"typo": fixed(mode="slow")})
    with pytest.raises(PolicyError, match=r"no mode 'slow'; the scenario gives it none \(devices.modes\)$"):
        simulate(none, "typo", 0)


def test_a_mode_encodes_only_what_was_timed_in_it(tmp_path: Path) -> None:
    experiment = world(tmp_path, policies={"split": fixed(mode="slow", split=1), "d": {"name": "dynasplit"}})
    synthetic.calibration(synthetic.spec(), 0.03, pairs=[(0, "jpeg")]).save(tmp_path / "slow.json")
    experiment = Experiment.open(experiment.scenario)
    assert experiment.setting().codecs == {0: ("jpeg",), 1: ("uint8",)}
    assert experiment.setting().in_mode("slow").codecs == {0: ("jpeg",)}
    with pytest.raises(PolicyError, match="codec 'uint8' at split 1 is not calibrated in mode 'slow'"):
        simulate(experiment, "split", 0)
    simulate(experiment, "d", 0)


def test_a_request_keeps_its_mode(tmp_path: Path) -> None:
    experiment = world(tmp_path, policies={"revising": {"name": "tests.test_modes:Revising"}})
    with pytest.raises(PolicyError, match="a request keeps the mode of its first plan"):
        simulate(experiment, "revising", 0)


BAD = {
    "hardware: nowhere.json": "devices.modes.slow.hardware: .*nowhere.json",
    "hardware: raspbery-pi-4": "devices.modes.slow.hardware: unknown hardware 'raspbery-pi-4'; did you mean",
    "energy: {compute_w: 3}": "devices.modes.slow.hardware: the key 'hardware' is missing",
    "hardware: host, energi: {}": "devices.modes.slow.energi: unknown key 'energi'; did you mean 'energy'",
    "hardware: host, energy: {compute: 3}": "devices.modes.slow.energy.compute: unknown key 'compute'; did you mean",
    "hardware: host, energy: {compute_w: -3}": "devices.modes.slow.energy.compute_w: found -3; expected a number",
}


@pytest.mark.parametrize("given", BAD)
def test_a_mode_that_cannot_be_read(tmp_path: Path, given: str) -> None:
    path = world(tmp_path).scenario.file
    with pytest.raises(ScenarioError, match=BAD[given]) as error:
        load(path, [f"devices.modes={{slow: {{{given}}}}}"])
    assert "\n" not in str(error.value)


def test_what_is_wrong_in_a_file_has_its_place(tmp_path: Path) -> None:
    path = world(tmp_path).scenario.file
    path.write_text(path.read_text().replace("fast.json", "fats.json"))
    (problem,) = check_scenario(path).problems
    assert (problem.where, problem.line > 1) == ("devices.modes.fast.hardware", True)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"compute_w": 1.0}, "devices.modes.slow: computes at 1 W; the devices wait at 2.5 W, so at least that"),
        (
            {"compute_w": 3.0, "idle_w": 1.0},
            "devices.modes.slow.energy.idle_w: found 1; whatever its modes, a device waits at 2.5 W; leave it out",
        ),
    ],
)
def test_powers_that_contradict_the_devices(tmp_path: Path, given: dict[str, float], says: str) -> None:
    modes = {"slow": {"hardware": "slow.json", "energy": given}}
    with pytest.raises(InputError) as error:
        world(tmp_path, devices__modes=modes)
    assert str(error.value).endswith(says)
    (problem,) = check_scenario(tmp_path / "scenario.yaml").problems
    assert problem.line > 0


def test_a_calibration_of_another_model(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    synthetic.calibration(synthetic.spec(4)).save(tmp_path / "slow.json")
    with pytest.raises(InputError, match=r"devices.modes.slow.hardware: .*measured 4 stages"):
        Experiment.open(experiment.scenario)


def test_the_compiled_engine_refuses_modes(tmp_path: Path) -> None:
    experiment = world(tmp_path, policies={"local": "local"})
    assert compiled.supports(experiment, "local") == "the devices of 'devices' have modes"
    with pytest.raises(InputError, match=r"^the compiled engine cannot run this: .*; use --engine simpy$"):
        compiled.simulate(experiment, "local", 0)
    assert not compiled.supports(world(tmp_path, devices__modes={}, policies={"local": "local"}), "local")


@pytest.mark.parametrize("require", [require_live, require_single])
def test_a_native_device_has_no_modes(tmp_path: Path, require: Any) -> None:
    with pytest.raises(UsageError, match=r"devices.modes: the devices are this machine itself .*cannot be set") as e:
        require(world(tmp_path).scenario)
    assert "\n" not in str(e.value)
    require(world(tmp_path, devices__hardware="raspberry-pi-4").scenario)


# --- Around it -----------------------------------------------------------------------------------------------


def test_groups_inherit_modes_and_may_have_their_own(tmp_path: Path) -> None:
    groups = {"a": {}, "b": {"modes": {}}, "c": {"modes": {"turbo": {"hardware": "fast.json"}}}}
    experiment = world(tmp_path, groups=groups)
    assert [[*experiment.setting(group).modes] for group in experiment.groups] == [["slow", "fast"], [], ["turbo"]]
    assert [path for path, _ in experiment.scenario.machines()][1] == ("groups", "a", "modes", "slow", "hardware")
    assert experiment.schema == WITH_MODES


def test_the_scenario_is_written_and_read_with_its_modes(tmp_path: Path) -> None:
    scenario = world(tmp_path).scenario
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "config.yaml").write_text(dump(scenario.resolved()))
    again = load(tmp_path / "copy" / "config.yaml")
    assert again == scenario
    assert (
        again.digest() == scenario.digest() != load(scenario.file, ["devices.modes.fast.energy.compute_w=9"]).digest()
    )


def test_a_run_folder_holds_the_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written by a command, read again, and charged the same energy."""
    path = world(tmp_path, devices__policy="in-turn").scenario.file
    assert run(["simulate", str(path), "--out", str(tmp_path / "run"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    stored = StoredRun.open(tmp_path / "run")
    assert (
        pc.unique(stored.table("in-turn", 0)["mode"]).to_pylist()
        == pq.read_table(tmp_path / "run" / "requests.parquet")["mode"].unique().to_pylist()
    )
    again = run_once(stored.experiment, "in-turn", 0)
    assert rows_sha256(again.table) == rows_sha256(stored.table("in-turn", 0))
    said = document["policies"]["in-turn"]["device_energy_mj_mean"]
    assert again.summary["device_energy_mj_mean"] == pytest.approx(said)


def test_the_host_computes_as_long_for_every_mode(tmp_path: Path) -> None:
    """A paced device in a slow mode waits longer, and takes the host no more of its time."""
    policies = {name or "usual": fixed(mode=name) for name in (None, "slow")}
    paced = {"devices__hardware": "raspberry-pi-4", "devices__energy": {"radio": "wifi"}}
    modes = {"slow": {"hardware": "raspberry-pi-3b-plus"}}
    experiment = world(tmp_path, policies=policies, devices__modes=modes, **paced)
    runs = {name: run_once(experiment, name, 0) for name in policies}
    work_s = {name: column(of.table, "device_compute_s").sum() for name, of in runs.items()}
    there = {None: experiment.device_calibration(), **experiment.mode_calibrations(experiment.groups[0])}
    for name, of in runs.items():
        calibration = there[None if name == "usual" else name]
        span_s = column(of.table, "done_s").max()
        host_s, mode_s = (sum(stage.mean for stage in c.stages) for c in (experiment.host, calibration))
        assert utilisations(experiment, of)[0] == pytest.approx([work_s[name] * min(1.0, host_s / mode_s) / span_s])


def test_a_decider_knows_the_modes(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    decider = Decider(Fixed(mode="slow"), experiment.setting())
    assert decider.decide([], 0).mode == "slow"
    with pytest.raises(PolicyError):
        Decider(Fixed(mode="x"), experiment.setting()).decide([], 0)
