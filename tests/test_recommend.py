"""recommend: what is searched, what is named, what would change it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from splitexit import cli
from splitexit.bundle import Bundle
from splitexit.capacity import Slo
from splitexit.cli.recommend import _link
from splitexit.decision import ExitCheck, Plan
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.footprint import Footprint
from splitexit.outlook import Outlook
from splitexit.recommend import ADAPTIVE, Advice, advise
from splitexit.recommend.search import Memory, Search, describe
from splitexit.scenario import load
from tests import synthetic

SHIPPED = Path(__file__).parents[1] / "scenarios" / "data" / "resnet32-cifar10"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return synthetic.experiment(tmp_path_factory.mktemp("world"), requests=120)


@pytest.fixture(scope="module")
def found(world: Experiment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Advice, Path]:
    folder = tmp_path_factory.mktemp("found")
    return advise(world, [Slo.parse("p95<500ms")], range(3), folder), folder


def test_the_plans_kept_hold_the_best_in_every_cost(world: Experiment) -> None:
    setting, search = world.setting(), Search(world.setting())
    kept = search.front(12)
    plans = list(search._plans())
    outlook = Outlook.of(plans, setting)
    utility = setting.utility.accuracy * outlook.accuracy - setting.utility.latency_per_s * outlook.latency_s(
        setting.link
    )
    best = plans[int(np.argmax(utility))]
    assert search.searched == len(plans) == len(set(plans))
    assert len(kept) <= 12 + 3  # and one with thresholds of their own for each of three places
    deciders = synthetic_policies(world, kept)
    assert best in deciders
    assert plans[int(np.argmin(outlook.latency_s(setting.link)))] in deciders
    assert max(Outlook.of(deciders, setting).accuracy) >= max(outlook.accuracy)


def synthetic_policies(world: Experiment, policies: dict[str, dict[str, object]]) -> list[Plan]:
    """The plan of every fixed policy."""
    from splitexit.decision import Observation
    from splitexit.policies import POLICIES

    plans = []
    for policy in policies.values():
        given = {key: value for key, value in policy.items() if key != "name"}
        made = POLICIES.load(str(policy["name"]))(**given)
        made.prepare(world.setting(), np.random.default_rng(0))
        plans.append(made.decide(Observation()))
    return plans


def test_the_choices_meet_the_levels_and_say_why(world: Experiment, found: tuple[Advice, Path]) -> None:
    advice, folder = found
    assert advice.met
    assert advice.recommended.reasons[0] == "recommended"
    named = [reason for choice in advice.choices for reason in choice.reasons]
    assert sorted(named) == sorted({"recommended", "fastest", "most accurate", "fewest bytes"} | set(named))
    for choice in advice.choices:
        assert choice.outcome == "meets", choice
        assert choice.intervals["p95_ms"].high < 500
    again = load(folder / "recommended.yaml")
    assert list(again.policies) == [choice.label for choice in advice.choices]
    assert again.policy_label == "recommended"


def test_test_samples_choose_nothing(world: Experiment, tmp_path: Path, found: tuple[Advice, Path]) -> None:
    """Where every answer on the test split is made wrong, the same choices are named."""
    from dataclasses import replace

    from splitexit.recording import Recording

    test = world.recording.test
    wrong = replace(test, label=((test.label + 1) % synthetic.CLASSES).astype(test.label.dtype))
    parts = {"calibration": world.recording.calibration, "test": wrong}
    broken = replace(world, recording=Recording(parts, world.recording.num_classes, world.recording.made))
    advice = advise(broken, [Slo.parse("p95<500ms")], range(3), tmp_path)
    assert [(c.label, c.policy) for c in advice.choices] == [(c.label, c.policy) for c in found[0].choices]
    assert advice.recommended.intervals["accuracy"].mean < found[0].recommended.intervals["accuracy"].mean


def test_what_nothing_meets_is_said_with_the_nearest(world: Experiment, tmp_path: Path) -> None:
    advice = advise(world, [Slo.parse("p95<1ms")], range(3), tmp_path)
    assert not advice.met
    assert [choice.reasons for choice in advice.choices] == [("nearest",)]
    assert advice.recommended.outcome == "fails"


def test_a_slower_link_changes_the_answer_where_it_must(tmp_path: Path) -> None:
    """Offloading to a much faster edge wins at 8 Mbit/s, and cannot where a payload takes longer than the device."""
    model = synthetic.spec(1)
    takes = synthetic.calibration(model, stage=0.100, pairs=[(0, "jpeg")])
    world = synthetic.experiment(
        tmp_path,
        model=model,
        says=synthetic.recording(model, pairs={(0, "jpeg"): 4000}),
        takes=takes,
        requests=60,
        devices__arrivals={"name": "periodic", "rate_hz": 0.2},
        devices__deadline_ms=60000.0,
        edge={"hardware": "workstation-cpu", "workers": 1},
        policies={},
    )
    advice = advise(world, [], range(3), tmp_path)
    assert isinstance(advice.flips, tuple)
    assert all(flip.meets for flip in advice.flips)
    below = [flip for flip in advice.flips if flip.factor < 1]
    assert below, advice
    assert below[0].mbps == pytest.approx(8 * below[0].factor)
    assert below[0].best != advice.recommended.label


def test_memory_bounds_what_the_device_runs() -> None:
    footprint = Footprint.of(Bundle.open(SHIPPED))
    whole, image = footprint.device_bytes(Plan()), footprint.device_bytes(Plan(split=0, codec="jpeg"))
    assert image == 4 * 3 * 32 * 32
    size = sum(footprint.stages) + footprint.heads[-1] + footprint.features[1] + footprint.features[2]
    assert whole == size
    early = Plan(exits=(ExitCheck(0),), split=2, codec="uint8")
    assert footprint.device_bytes(early) == footprint.device_bytes(Plan(split=2, codec="uint8")) + footprint.heads[0]
    learned = next(iter(footprint.codecs))
    with_codec = Plan(split=learned[0], codec=learned[1])
    assert footprint.device_bytes(with_codec) > footprint.device_bytes(Plan(split=learned[0], codec="uint8"))
    weights = SHIPPED / "model.safetensors"
    assert abs(sum(footprint.stages) + sum(footprint.heads) - weights.stat().st_size) < 64 * 1024  # its header


def test_memory_leaves_plans_out(world: Experiment, tmp_path: Path) -> None:
    footprint = Footprint((1000, 1000, 1000), (10, 10, 10), {}, (64, 64, 64, 64))
    search = Search(world.setting(), Memory(1500, footprint))
    policies = search.front(12)
    assert search.too_large > 0
    assert policies
    assert all(plan.split is not None and plan.split <= 1 for plan in synthetic_policies(world, policies))
    with pytest.raises(InputError, match="model.safetensors"):
        advise(world, [], range(3), tmp_path, memory_bytes=10)


def test_policies_in_a_few_words() -> None:
    assert describe({"name": "local"}) == "local"
    assert describe({"name": "offload", "split": 2, "codec": "uint8"}) == "offload uint8@2"
    threshold = {"name": "threshold", "exits": [0, 2], "thresholds": [0.5, 0.75], "split": 3, "codec": "jpeg"}
    assert describe(threshold) == "exits 0 2 at 0.5 0.75, then jpeg@3"
    assert describe({"name": "neurosurgeon", "codecs": None}) == "neurosurgeon"


def test_the_command(world: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = str(world.scenario.file), tmp_path / "out"
    arguments = ["recommend", file, "--slo", "p95<500ms", "--seeds", "0-2", "--requests", "40", "--out", str(out)]
    assert cli.run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["met"]
    assert set(document["choices"]) == set(load(out / "recommended.yaml").policies)
    assert json.loads((out / "summary.json").read_text())["simulated"] == document["simulated"]
    assert cli.run(arguments) == 0
    shown = capsys.readouterr().out
    assert "highest utility" in shown
    assert "Mbit/s" in shown or "times the bandwidth" in shown
    assert shown.splitlines()[-1] == str(out)


@pytest.mark.parametrize(("text", "name"), [("0 5\n1 1\n", "trace"), ("2\n4\n9\n", "mahimahi")])
def test_a_link_may_be_the_file_of_a_trace(tmp_path: Path, text: str, name: str) -> None:
    trace = tmp_path / "walk.txt"
    trace.write_text(text)
    assert json.loads(_link(str(trace))) == {"name": name, "trace": str(trace)}
    scenario = load(synthetic.write_scenario(tmp_path), [f"uplink={_link(str(trace))}"])
    assert scenario.links(next(iter(scenario.fleet.values())))[0].name == name


def test_policies_that_adapt_are_searched_where_they_fit(found: tuple[Advice, Path]) -> None:
    advice, folder = found
    searched = load(folder / "searched.yaml").policies
    assert {*ADAPTIVE} & {*searched}
    assert len(searched) == advice.simulated


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "does not say --device and --link"),
        (["--device", "host", "--link", "nope"], "unknown link 'nope'"),
        (["--device", "host", "--link", "lte", "--seeds", "0"], "at least 3 seeds"),
        (["--device", "host", "--link", "lte", "--slo", "p95>1ms"], "more is worse"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str) -> None:
    assert cli.run(["recommend", str(SHIPPED), "--out", str(tmp_path), *more]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
