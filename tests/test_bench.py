"""`splitexit bench methods`: recipes, training in the right order, scores, and going on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from splitexit.bench import plan as plans
from splitexit.bench.methods import Bench, Source, parse_source
from splitexit.bench.score import COMPARED, HELD, SPREAD, TOLERANCES, difference
from splitexit.bench.show import HEADS, RULE_HEADS, cells, draw, grouped, rule_cells
from splitexit.cli import run
from splitexit.cli.bench import with_seeds
from splitexit.errors import InputError, UsageError
from splitexit.models.fit import Watcher
from splitexit.models.multi_exit import NetConfig, build
from tests.models_tiny import stripes

RECIPES = """
about: a test
train: {backbone: "resnet:depth=8,width=4", epochs: 2, batch: 16, lr: 0.05, augment: none, precision: fp32}
data: {stripes: {}, small: {limit: 120, epochs: 5, lr: 0.2}}
networks:
  plain: {exits: none}
  joint: {twin: plain, exits: "40,70", objective: "joint:weights=uniform", only: [stripes]}
  heads: {twin: plain, init: plain, freeze: true, exits: "40", epochs: 1, rule: entropy}
  exclusion: {twin: plain, exits: "40,70", head: exclusion, objective: exclusion, rule: exclusion, only: [stripes]}
"""


def written(folder: Path, text: str = RECIPES) -> Path:
    path = folder / "recipes.yaml"
    path.write_text(text)
    return path


def test_what_a_network_needs_comes_before_it(tmp_path: Path) -> None:
    plan = plans.read_plan(written(tmp_path, RECIPES.replace("plain: {exits", "zzz: {exits").replace("plain", "zzz")))
    assert [network.name for network in plan.on("stripes")] == ["zzz", "joint", "heads", "exclusion"]
    assert [network.name for network in plan.on("small")] == ["zzz", "heads"]


def test_a_method_takes_what_its_twin_says(tmp_path: Path) -> None:
    plan = plans.read_plan(written(tmp_path))
    joint = plan.recipe(plan.networks["joint"], "stripes", 3, None)
    assert (joint.epochs, joint.seed, joint.shares, joint.limit) == (2, 3, (0.4, 0.7), None)
    assert joint.backbone == {"name": "resnet", "depth": 8, "width": 4}
    assert plan.recipe(plan.networks["plain"], "small", 0, None).limit == 120
    assert plan.epochs(plan.networks["heads"], "stripes") == 3


def test_own_keys_count_before_those_of_the_data_and_those_before_the_common_ones(tmp_path: Path) -> None:
    text = RECIPES.replace("plain: {exits: none}", "plain: {exits: none, lr: 0.01}")
    plan = plans.read_plan(written(tmp_path, text.replace(", only: [stripes]}", ", weight_decay: 0.1}")))
    plain, joint, heads = (
        plan.recipe(plan.networks[name], "small", 0, None if name != "heads" else "plain")
        for name in ("plain", "joint", "heads")
    )
    assert (plain.epochs, plain.lr, plain.batch, plain.weight_decay) == (5, 0.01, 16, 5e-4)
    assert (joint.epochs, joint.lr, joint.weight_decay) == (5, 0.01, 0.1), "a twin's keys count as the method's own"
    assert heads.epochs == 1
    assert plan.epochs(plan.networks["heads"], "small") == 6


def test_a_data_set_may_have_its_own_seeds(tmp_path: Path) -> None:
    path = written(tmp_path, RECIPES.replace("{limit: 120", "{seeds: [4, 5], limit: 120"))
    plan = plans.read_plan(path)
    assert (plan.seeds_on("stripes"), plan.seeds_on("small")) == ((0,), (4, 5))
    assert with_seeds(plan, None).seeds_on("small") == (4, 5)
    assert with_seeds(plan, "1-2").seeds_on("small") == (1, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("networks:", "network:"), "network: unknown key 'network'; did you mean 'networks'"),
        (("twin: plain, exits", "twin: plane, exits"), "networks.joint.twin: unknown network 'plane'; did you mean"),
        (
            ("plain: {exits: none}", "plain: {exits: none, twin: plain}"),
            "plain.twin: plain needs plain itself",
        ),
        (
            ("rule: entropy", "rule: entropi"),
            "heads.rule: unknown exit rule 'entropi'; did you mean 'entropy'",
        ),
        (("only: [stripes]", "only: [stripe]"), "networks.joint.only: unknown data set 'stripe'"),
        (("epochs: 1", "epochs: 0"), "networks.heads: epochs: expected a number from 1, found 0"),
        (("epochs: 1", "epoch: 1"), "networks.heads.epoch: unknown key 'epoch'; did you mean 'epochs'"),
        (("{exits: none}", '{exits: "10"}'), "networks.joint.twin: plain leaves early itself"),
        (("{limit: 120, epochs: 5, lr: 0.2}", "120"), "data.small: expected keys with values, found 120"),
        (
            ("{limit: 120,", "{seeds: [0, x],"),
            "data.small.seeds: expected a list of whole numbers from 0, found [0, 'x']",
        ),
    ],
)
def test_what_is_wrong_with_a_recipe(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in RECIPES
    with pytest.raises(InputError) as error:
        plans.read_plan(written(tmp_path, RECIPES.replace(*change)))
    assert said in str(error.value)
    assert f"{tmp_path / 'recipes.yaml'}:" in str(error.value)


@pytest.mark.parametrize("path", sorted(plans.RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_sound(path: Path) -> None:
    plan = plans.read_plan(plans.find(path.stem))
    assert plan.about
    for network in plan.networks.values():
        assert network.twin is None or not plan.networks[network.twin].twin


SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "gtsrb48": (3, 48, 48), "tiny_imagenet50": (3, 64, 64)}


@pytest.mark.parametrize("name", ["quick", "cpu", "gpu"])
def test_every_network_of_the_shipped_recipes_can_be_built(name: str) -> None:
    """Exits find their blocks, heads and backbones their parameters, on every data set that it is for."""
    plan = plans.read_plan(plans.find(name))
    for data in plan.data:
        for network in plan.on(data):
            recipe, shape = plan.recipe(network, data, 0, network.init), SHAPES[data]
            grey = (0.5,) * shape[0]
            config = NetConfig(recipe.backbone, shape, 10, recipe.shares, recipe.head, mean=grey, std=grey)
            assert len(build(config).heads) == len(recipe.shares) + 1


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(InputError, match="by name there are .*quick"):
        plans.find("quik")


def test_sources() -> None:
    assert parse_source("mnist=a.parquet,b.parquet") == ("mnist", Source("a.parquet", "b.parquet"))
    assert parse_source("mnist=folder") == ("mnist", Source("folder", "folder"))
    with pytest.raises(UsageError, match="NAME=TRAIN,TEST"):
        parse_source("a.parquet")


def bench(folder: Path, said: list[str]) -> Bench:
    plan = plans.read_plan(written(folder))
    return Bench(plan, {"stripes": Source(stripes(), stripes("test"))}, folder / "run", "cpu", said.append, Watcher())


def test_every_method_is_trained_and_compared_and_kept(tmp_path: Path) -> None:
    said: list[str] = []
    results = list(bench(tmp_path, said).run())
    assert [found["network"] for found in results] == ["joint", "heads", "exclusion"]
    joint, heads, exclusion = results
    assert (joint["epochs"], joint["twin_epochs"], heads["epochs"]) == (2, 2, 3)
    assert heads["final_accuracy"] == heads["twin_accuracy"]  # its backbone is the twin's
    assert heads["final_difference"] == {"points": 0.0, "low": 0.0, "high": 0.0}
    for found in results:
        assert found["difference"]["low"] <= found["difference"]["points"] <= found["difference"]["high"]
        assert found["accuracy"] - found["twin_accuracy"] == pytest.approx(found["difference"]["points"])
        assert sum(found["exit_rates"]) == pytest.approx(1.0)
        assert 0.0 < found["cost"] <= 1.5
        assert set(found["rules"]) == set(COMPARED)
        assert set(found["held"]) == set(found["small"]) == {found["rule"], *COMPARED}
        assert all(at is None or at["cost"] < 0.5 for at in found["small"].values())
        assert found["held"][found["rule"]]["cost"] == found["cost"]
        assert found["held"][found["rule"]]["difference"] == found["difference"]
        assert len(found["ece_tempered"]) == len(found["ece"]) == len(found["exits"]) == len(found["ece_leaving"])
        assert [error is None for error in found["ece_leaving"]] == [rate == 0 for rate in found["exit_rates"]]
        assert len(found["thresholds"]) == len(found["exits"]) - 1
    first_half = [found["exits"][0]["accuracy"] for found in results]
    assert heads["mean_first_half"] == first_half[1]
    assert joint["mean_first_half"] == pytest.approx((first_half[0] + joint["exits"][1]["accuracy"]) / 2)
    assert joint["rules"]["max_prob"]["difference"]["points"] == pytest.approx(
        joint["rules"]["max_prob"]["accuracy"] - joint["accuracy"]
    )
    assert [found["spread"]["rule"] for found in results] == ["max_prob", "entropy", "max_prob"]
    assert joint["spread"]["common"]["accuracy"] == pytest.approx(joint["accuracy"])
    assert joint["spread"]["common"]["balance"] == pytest.approx(joint["balance"])
    assert set(joint["spread"]) == {"rule", *SPREAD}
    assert [found["exclusion"] is None for found in results] == [True, True, False]
    assert [len(of_exits) for of_exits in exclusion["exclusion"].values()] == [2, 2]
    first, *others = exclusion["curve"]
    assert first["accuracy"] == exclusion["final_accuracy"]
    assert all(other["cost"] <= first["cost"] for other in others)
    assert len(exclusion["curve"]) == 1 + len(TOLERANCES)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.*")}
    assert list(bench(tmp_path, said).run()) == results
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert [len(seeds) for seeds in grouped(results)] == [1, 1, 1]
    assert len(cells([joint])) == len(HEADS)
    for found in (joint, exclusion):
        row = rule_cells([found], "held")
        assert row is not None
        assert len(row) == len(RULE_HEADS)
        assert (row[-1] == "") is (found["rule"] in COMPARED)
    nothing = dict.fromkeys(joint["small"])
    assert rule_cells([joint | {"small": nothing}], "small") is None
    score = tmp_path / "run" / "stripes" / "joint-0" / "score.json"
    made = json.loads(score.read_text())
    for old in ({key: value for key, value in made.items() if key != "format"}, made | {"rule": "margin", "cost": 7}):
        score.write_text(json.dumps(old))
        assert next(iter(bench(tmp_path, said).run())) == joint
        assert json.loads(score.read_text()) == joint
    assert {path: path.stat().st_mtime_ns for path in files if path != score} == {
        path: time for path, time in files.items() if path != score
    }
    (picture,) = draw(results, tmp_path)
    assert picture.stat().st_size > 5_000


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--recipes", str(written(tmp_path)), "--data", f"stripes={stripes()},{stripes('test')}"]
    assert run(["bench", "methods", *options, "--out", str(tmp_path / "run"), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [found["network"] for found in document["methods"]] == ["joint", "heads", "exclusion"]
    assert document["seeds"] == {"stripes": [0]}
    assert run(["bench", "methods", *options, "--out", str(tmp_path / "run")]) == 0
    *table, last = capfd.readouterr().out.splitlines()
    assert last == str(tmp_path / "run")
    assert any("joint" in line for line in table)
    for given, said in (
        (["mine=a,b"], "a:"),
        (["mine/a=a,b"], "expected NAME=TRAIN,TEST"),
        (["stripes=a,b", "stripes=c"], "given twice"),
    ):
        data = [word for one in given for word in ("--data", one)]
        assert run(["bench", "methods", "--recipes", str(tmp_path / "recipes.yaml"), *data]) == 2
        assert said in capfd.readouterr().err


def test_data_that_the_recipes_do_not_know(tmp_path: Path) -> None:
    """Somebody's own images are trained on as `train` says, by what is not for some data sets alone."""
    plan = plans.read_plan(written(tmp_path)).with_data(["mine", "small"])
    assert [network.name for network in plan.on("mine")] == ["plain", "heads"]
    assert plan.recipe(plan.networks["plain"], "mine", 0, None).epochs == 2
    assert plan.recipe(plan.networks["plain"], "small", 0, None).epochs == 5


def test_a_difference_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(4000) < 0.9
    other = right ^ (rng.random(4000) < 0.02)
    found = difference(right, other)
    assert found["points"] == pytest.approx(100 * (right.mean() - other.mean()))
    assert found["low"] < found["points"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 100 * np.sqrt(0.02 / 4000), rel=0.2)
    assert difference(right, right) == {"points": 0.0, "low": 0.0, "high": 0.0}
    assert HELD == 0.5
