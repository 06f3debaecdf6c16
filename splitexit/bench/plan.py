"""Recipe files of `splitexit bench methods`: YAML that names networks, how each is trained, and its exit-free twin.

    about: one line
    seeds: [0]
    train: {epochs: 12}                  keys of splitexit.models.recipe.Recipe, for every network
    data: {mnist: {augment: none}}       data sets, with the keys that differ there, and `seeds` of their own
    networks:
      plain: {backbone: "resnet:depth=20", exits: none}
      joint: {twin: plain, exits: "15,30,60", objective: "joint:weights=uniform"}

A network with a `twin` is a method: it is compared with the twin. A key of the network itself counts before one of its
twin, that before one of the data set, and that before one of `train`. `init` names another network of the file, from
whose weights it starts; then its `epochs` are those that follow, and the table states the sum. `rule` is the exit rule
that it is used with (default max_prob), `only` lists the data sets that it is for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from splitexit.confidence import RULES
from splitexit.errors import InputError, ScenarioError, UnknownNameError
from splitexit.models.placement import parse_exits
from splitexit.models.recipe import Recipe
from splitexit.models.spec import parse_spec
from splitexit.scenario import strict_yaml

RECIPES = Path(__file__).parent / "recipes"

TOP = ("about", "seeds", "train", "data", "networks")
OWN = ("twin", "rule", "only", "init", "exits")
"""Keys of a file, and of a network beside those of a Recipe."""

TRAINING = {field.name for field in dataclasses.fields(Recipe)} - {"seed", "init", "shares"}
"""Keys of a Recipe that a file may give."""

SPECS = ("backbone", "head", "objective")

Keys = Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """One network of a plan.

    keys   of its Recipe that it or its twin gives
    twin   the exit-free network to compare it with; None for a twin
    init   the network that its training starts from
    rule   by which its exits are left
    only   the data sets that it is for; empty: all
    """

    name: str
    keys: Keys
    twin: str | None = None
    init: str | None = None
    rule: str = "max_prob"
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be trained and compared.

    train      keys of a Recipe for all
    data       data set -> the keys that differ there
    own_seeds  data set -> its seeds, where they are not `seeds`
    """

    about: str
    seeds: tuple[int, ...]
    train: Keys
    data: Mapping[str, Keys]
    own_seeds: Mapping[str, tuple[int, ...]]
    networks: Mapping[str, Network]

    def with_data(self, names: Iterable[str]) -> Plan:
        """The plan with more data sets, on which everything that is not for some alone is trained as `train` says."""
        return dataclasses.replace(self, data={**{name: {} for name in names}, **self.data})

    def seeds_on(self, data: str) -> tuple[int, ...]:
        """Of the networks on a data set."""
        return self.own_seeds.get(data, self.seeds)

    def keys(self, network: Network, data: str) -> dict[str, Any]:
        """Of a network's Recipe on a data set, without seed."""
        return {"shares": (), **self.train, **self.data[data], **network.keys}

    def on(self, data: str) -> list[Network]:
        """The networks for a data set, each behind those that it needs."""
        chosen = [n for n in self.networks.values() if not n.only or data in n.only]
        done: dict[str, Network] = {}
        for network in chosen:
            self._add(network, done)
        return list(done.values())

    def _add(self, network: Network, done: dict[str, Network]) -> None:
        for needed in filter(None, (network.twin, network.init)):
            self._add(self.networks[needed], done)
        done.setdefault(network.name, network)

    def recipe(self, network: Network, data: str, seed: int, init: str | None) -> Recipe:
        """How a network is trained on a data set; `init` is the folder of what it starts from."""
        return Recipe(**self.keys(network, data), seed=seed, init=init)

    def epochs(self, network: Network, data: str) -> int:
        """Of its whole training, with that of what it starts from."""
        before = 0 if network.init is None else self.epochs(self.networks[network.init], data)
        return before + int(self.keys(network, data).get("epochs", Recipe.epochs))


def find(name: str) -> Path:
    """A recipe file by its path, or one of RECIPES by its name; raises InputError."""
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
    raise InputError(f"{name}: no such recipe file; by name there are {known}")


def read_plan(path: Path) -> Plan:
    """Reads and checks a recipe file; raises InputError that names file, line and key."""
    return _Reader(strict_yaml.read(path)).plan()


class _Reader:
    """Turns a document into a plan; complains with the place."""

    def __init__(self, document: strict_yaml.Document) -> None:
        self._document = document

    def plan(self) -> Plan:
        """The whole file."""
        self._refuse_unknown((), self._at(()), TOP)
        if not self._at(("networks",)):
            self._fail(("networks",), "expected at least one network")
        data = self._at(("data",))
        plan = Plan(
            about=str(self._document.value.get("about", "")),
            seeds=self._seeds(("seeds",), self._document.value.get("seeds", [0])),
            train=self._training(("train",), ()),
            data={name: self._training(("data", name), ("seeds",)) for name in data},
            own_seeds={
                name: self._seeds(("data", name, "seeds"), self._at(("data", name))["seeds"])
                for name in data
                if "seeds" in self._at(("data", name))
            },
            networks={name: self._network(name) for name in self._at(("networks",))},
        )
        for network in plan.networks.values():
            self._check(plan, network)
        return plan

    def _check(self, plan: Plan, network: Network) -> None:
        """Before hours of training: whether everything that a network needs is there, on all its data sets."""
        where = ("networks", network.name)
        for data in network.only:
            if data not in plan.data:
                self._fail((*where, "only"), str(UnknownNameError("data set", data, plan.data)))
        for data in network.only or plan.data:
            try:
                plan.recipe(network, data, 0, network.init)
            except (InputError, TypeError) as error:
                self._fail(where, str(error))

    def _fail(self, path: tuple[str | int, ...], what: str) -> NoReturn:
        raise ScenarioError(self._document.file, [self._document.problem(path, what)])

    def _at(self, path: tuple[str, ...]) -> Keys:
        """The mapping at a path; empty where there is none."""
        value: Any = self._document.value
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict):
            self._fail(path, f"expected keys with values, found {value!r}")
        return value or {}

    def _seeds(self, path: tuple[str, ...], value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(n, int) and n >= 0 for n in value):
            self._fail(path, f"expected a list of whole numbers from 0, found {value!r}")
        return tuple(value)

    def _network(self, name: str, above: tuple[str, ...] = ()) -> Network:
        """One network, with the keys of its twin under its own."""
        where = ("networks", name)
        given = self._at(where)
        needed = {key: self._other(where, key, (*above, name)) for key in ("twin", "init") if given.get(key)}
        own = self._training(where, OWN)
        twin = needed.get("twin")
        if twin is not None and twin.keys.get("shares"):
            self._fail((*where, "twin"), f"{twin.name} leaves early itself; name an exit-free network (exits: none)")
        rule = given.get("rule", "max_prob")
        if rule not in RULES:
            self._fail((*where, "rule"), str(UnknownNameError("exit rule", str(rule), RULES)))
        only = given.get("only", [])
        if not isinstance(only, list):
            self._fail((*where, "only"), f"expected a list of data sets, found {only!r}")
        under = {} if twin is None else twin.keys
        return Network(name, {**under, **own}, given.get("twin"), given.get("init"), rule, tuple(only))

    def _other(self, where: tuple[str, str], key: str, above: tuple[str, ...]) -> Network:
        networks, name = self._at(("networks",)), self._at(where)[key]
        if name not in networks:
            self._fail((*where, key), str(UnknownNameError("network", str(name), networks)))
        if name in above:
            self._fail((*where, key), f"{name} needs {above[-1]} itself")
        return self._network(name, above)

    def _training(self, path: tuple[str, ...], beside: Sequence[str]) -> dict[str, Any]:
        """The keys of a Recipe at a path, with specs and exits parsed."""
        given = self._at(path)
        self._refuse_unknown(path, given, (*sorted(TRAINING), *beside))
        keys = {key: value for key, value in given.items() if key in TRAINING}
        try:
            for key in SPECS:
                if isinstance(keys.get(key), str):
                    keys[key] = parse_spec(keys[key])
            if "exits" in given:
                keys["shares"] = parse_exits(str(given["exits"]))
        except InputError as error:
            self._fail(path, str(error))
        return keys

    def _refuse_unknown(self, path: tuple[str, ...], given: Keys, known: Sequence[str]) -> None:
        for key in given:
            if key not in known:
                self._fail((*path, key), str(UnknownNameError("key", str(key), known)))
