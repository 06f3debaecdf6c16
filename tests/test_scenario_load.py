"""Scenarios: what a file means, what is wrong with one and where, and what `--set` changes."""

from __future__ import annotations

import pickle
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from splitexit.arrivals import Closed, Poisson
from splitexit.errors import InputError, ScenarioError, UnknownNameError
from splitexit.links import Link
from splitexit.links.constant import Constant
from splitexit.policies import POLICIES
from splitexit.policies.local import Local
from splitexit.policies.offload import Offload
from splitexit.policies.threshold import Threshold
from splitexit.scenario import Folders, Scenario, Spec, dump, load
from splitexit.scenario.schema import SECTIONS
from splitexit.scenario.spec import ZOOS, parse
from splitexit.scenario.spec import load as load_class

MINIMAL = """\
bundle: bundle
uplink: {name: constant, mbps: 5.85, delay_ms: 10}
downlink: {name: constant, mbps: 13}
"""

FULL = """\
name: full
bundle: ../bundle
requests: 500
seed: 7
devices:
  count: 3
  hardware: raspberry-pi-3b-plus
  arrivals: {name: closed, think_ms: 5}
  policy: early
  deadline_ms: 250
  pipeline: false
uplink: {name: trace, trace: lte.txt, scale: 2}
downlink: {name: constant, mbps: 13, delay_ms: 10}
edge: {hardware: host, workers: 2}
utility: {accuracy: 2, latency_per_s: 0.5, miss: 1}
policies:
  early: {name: threshold, thresholds: [0.9, 1], exits: [0, 1]}
  image: {name: offload, codec: "jpeg:quality=75"}
  local: local
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a trace."""
    (tmp_path / "lte.txt").write_text("0 5\n1 6\n")
    return tmp_path


def write(folder: Path, text: str, name: str = "scenario.yaml") -> Path:
    """A scenario file."""
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def failure(folder: Path, text: str, overrides: Sequence[str] = ()) -> list[str]:
    """The lines of the error that loading `text` ends in, without the folder."""
    with pytest.raises(ScenarioError) as caught:
        load(write(folder, text), overrides)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_what_is_left_out_has_its_default(folder: Path) -> None:
    scenario = load(write(folder, MINIMAL, "three-keys.yaml"))
    assert scenario.name == "three-keys"
    assert scenario.file == folder / "three-keys.yaml"
    assert scenario.bundle == folder / "bundle"
    assert (scenario.requests, scenario.seed) == (2000, 0)
    assert scenario.devices.arrivals == Spec("arrivals", "poisson", {"rate_hz": 4.0})
    assert scenario.devices.policy == Spec("policy", "local", {})
    assert scenario.devices.deadline_s == 1.0
    expected = {"mbps": 13.0, "delay_ms": 0.0, "jitter_ms": 0.0, "jitter": "normal"}
    assert scenario.downlink.parameters.items() >= expected.items()
    assert scenario.policies == {}


def test_every_key_is_read(folder: Path) -> None:
    scenario = load(write(folder, FULL))
    assert scenario.bundle == folder.parent / "bundle"
    assert (scenario.name, scenario.requests, scenario.seed) == ("full", 500, 7)
    devices = scenario.devices
    assert (devices.count, devices.hardware, devices.pipeline) == (3, "raspberry-pi-3b-plus", False)
    assert devices.deadline_s == 0.25
    assert devices.policy == scenario.policies["early"], "a label stands for its entry"
    assert scenario.uplink.name == "trace"
    assert (scenario.uplink.parameters["trace"], scenario.uplink.parameters["scale"]) == (folder / "lte.txt", 2.0)
    assert (scenario.edge.hardware, scenario.edge.workers) == ("host", 2)
    assert (scenario.utility.accuracy, scenario.utility.latency_per_s, scenario.utility.miss) == (2.0, 0.5, 1.0)
    assert scenario.utility.of(True, 1.0, True) == 1.5
    assert list(scenario.policies) == ["early", "image", "local"]


def test_specs_create_members_of_the_zoos(folder: Path) -> None:
    scenario = load(write(folder, FULL))
    assert isinstance(scenario.devices.arrivals.create(), Closed)
    early, image, local = (scenario.policies[label].create() for label in ("early", "image", "local"))
    assert isinstance(early, Threshold)
    assert early.thresholds == [0.9, 1.0]
    assert isinstance(image, Offload)
    assert image.codec == "jpeg", "codec ids are canonical: 75 is the default"
    assert isinstance(local, Local)
    downlink = scenario.downlink.create()
    assert isinstance(downlink, Constant)
    assert downlink is not scenario.downlink.create()


def test_defaults_of_sections_are_what_their_files_would_give(folder: Path) -> None:
    """Defaults are not checked when a scenario is read, so they are checked here."""
    folders = Folders(folder, folder)
    for section in SECTIONS.values():
        for field in section.model_fields.values():
            if isinstance(field.default, Spec):
                assert parse(field.default.kind, field.default.plain(), folders) == field.default


def test_whole_numbers_may_be_written_as_2e3(folder: Path) -> None:
    text = MINIMAL + "requests: 2e3\npolicies: {a: {name: offload, split: 1.0, codec: raw}}"
    scenario = load(write(folder, text))
    assert scenario.requests == 2000
    assert isinstance(scenario.requests, int)
    assert scenario.policies["a"].parameters["split"] == 1


def test_nothing_can_be_changed(folder: Path) -> None:
    scenario = load(write(folder, MINIMAL))
    with pytest.raises(ValidationError, match="frozen"):
        scenario.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        scenario.devices.count = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        scenario.uplink.name = "trace"  # type: ignore[misc]


def test_scenarios_travel_between_processes(folder: Path) -> None:
    scenario = load(write(folder, FULL))
    assert pickle.loads(pickle.dumps(scenario)) == scenario


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sed: 1", "4:1: sed: unknown key 'sed'; did you mean 'seed' or 'edge'?"),
        ("requests: many", "4:11: requests: found 'many'; expected a whole number; the default is 2000"),
        ("requests: 1.5", "4:11: requests: found 1.5; expected a whole number; the default is 2000"),
        ("requests: '5'", "4:11: requests: found '5'; expected a whole number; the default is 2000"),
        ("requests: true", "4:11: requests: found true; expected a whole number; the default is 2000"),
        ("requests: 0", "4:11: requests: found 0; expected a number greater than 0; the default is 2000"),
        ("requests:", "4:10: requests: found nothing (null); expected a whole number; the default is 2000"),
        ("seed: 1e30", "4:7: seed: found 1e+30; expected a whole number; the default is 0"),
        ("name: 5", "4:7: name: found 5; expected text (in quotes); the default is \"\""),
        ("devices: 3", "4:10: devices: found 3; expected a mapping with the keys count, hardware, arrivals, order, "
                       "policy, deadline_ms, pipeline, retries, access_point, uplink, downlink, energy"),
        ("devices: {cont: 2}", "4:11: devices.cont: unknown key 'cont'; did you mean 'count' or 'access_"),
        ("devices: {pipeline: yes}", "4:21: devices.pipeline: found 'yes'; expected true or false; the"),
        ("devices: {deadline_ms: -1}", "4:24: devices.deadline_ms: found -1; expected a number greater than 0; "
                                       "the default is 1000"),
        ("devices: {deadline_ms: .inf}", "4:24: devices.deadline_ms: found inf; expected a finite number; "
                                         "the default is 1000"),
        ("devices: {hardware: raspbery}", "4:21: devices.hardware: unknown hardware 'raspbery'; did you mean "
                                          "'raspberry-pi-4' or 'raspberry-pi-3b-plus'?"),
        ("devices: {arrivals: poisson}", "4:11: devices.arrivals.rate_hz: the key 'rate_hz' is missing; mean requests "
                                         "per second"),
        ("devices: {arrivals: {name: poison}}", "4:28: devices.arrivals.name: unknown arrivals 'poison'; did you mean "
                                                "'poisson'?"),
        ("devices: {policy: treshold}", "4:19: devices.policy: unknown policy 'treshold'; did you mean 'threshold'?"),
        ("devices: {policy: 5}", "4:19: devices.policy: found 5; expected the name of a policy, or a mapping with"),
        ("policies: {a: {nam: local}}", "4:12: policies.a.name: the key 'name' is missing; expected one of local, "),
        ("policies: {a: {name: 5}}", "4:22: policies.a.name: found 5; expected one of local, "),
        ("policies: {a: {name: offload, splt: 1}}", "4:31: policies.a.splt: unknown key 'splt'; did you mean 'split'?"),
        ("policies: {a: {name: offload, split: -1}}", "4:38: policies.a.split: found -1; expected a number greater "
                                                      "than or equal to 0; the default is 0"),
        ("policies: {a: {name: offload, codec: jpg}}", "4:38: policies.a.codec: unknown codec 'jpg'; did you mean "
                                                       "'jpeg'"),
        ("policies: {a: {name: neurosurgeon, codecs: [raw, zip]}}", "4:50: policies.a.codecs.1: unknown codec 'zip'"),
        ("policies: {a: {name: threshold, rule: foo}}", "4:39: policies.a.rule: found 'foo'; expected 'max_prob', "
                                                        "'entropy', 'margin', 'confidence', 'patience', "
                                                        "'max_logit', 'exclusion' or 'exclusion_strict'; "
                                                        "the default is \"max_prob\""),
        ("policies: {a: {name: threshold, thresholds: [1, x]}}", "4:49: policies.a.thresholds.1: found 'x'; expected a "
                                                                 "number"),
        ("policies: {'a b': local}", "4:12: policies.a b: the label 'a b' is not 1 to 40 letters, digits and any of"),
        ("policies: [local]", "4:11: policies: found a list; expected a mapping"),
        ("utility: {miss: -1}", "4:17: utility.miss: found -1; expected a number greater than or equal to 0"),
        ("edge: {workers: 1, workers: 2}", "4:20: edge.workers: duplicate key 'workers', first on line 4; keep one"),
    ],
)  # fmt: skip
def test_one_wrong_thing_is_one_line_with_its_place(folder: Path, text: str, expected: str) -> None:
    (line,) = failure(folder, MINIMAL + text)
    assert line.startswith(f"scenario.yaml:{expected}")


@pytest.mark.parametrize(
    ("uplink", "expected"),
    [
        ("{name: constant, mbps: -5}", "2:32: uplink.mbps: found -5; expected a number greater than 0; rate in Mbit/s"),
        ("{name: constant}", "2:1: uplink.mbps: the key 'mbps' is missing; rate in Mbit/s"),
        ("constant", "2:1: uplink.mbps: the key 'mbps' is missing; rate in Mbit/s"),
        ("{name: carrier-pigeon}", "2:16: uplink.name: unknown link 'carrier-pigeon'; known: "),
        ("{name: trace, trace: empty.txt}", "2:30: uplink.trace: {folder}/empty.txt: the trace is empty"),
        ("{name: trace, trace: nowhere.txt}", "2:30: uplink.trace: {folder}/nowhere.txt: no such trace"),
        ("{name: trace, trace: bad.txt}", "2:30: uplink.trace: {folder}/bad.txt:2: "),
        ("{name: trace, trace: 5}", "2:30: uplink.trace: found 5; expected text (in quotes); the file"),
        ('{name: "os:system"}', "2:16: uplink.name: unknown link 'os:system'; known: "),
        ('{name: "antigravity:x"}', "2:16: uplink.name: unknown link 'antigravity:x'; known: "),
        ('{name: "pip.__main__:x"}', "2:16: uplink.name: unknown link 'pip.__main__:x'; known: "),
        ('{name: "splitexit.links:Link"}', "2:16: uplink.name: 'splitexit.links:Link' is not a link"),
        ('{name: "splitexit.links:read"}', "2:16: uplink.name: link 'splitexit.links:read': module"),
        ('{name: "nowhere_at_all:x"}', "2:16: uplink.name: link 'nowhere_at_all:x' needs the Python module"),
    ],
)
def test_what_is_wrong_with_a_link(folder: Path, uplink: str, expected: str) -> None:
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "bad.txt").write_text("0 1\nx y\n")
    text = f"bundle: bundle\nuplink: {uplink}\ndownlink: {{name: constant, mbps: 13}}\n"
    (line,) = failure(folder, text)
    assert line.startswith("scenario.yaml:" + expected.format(folder=folder)), line


def test_missing_keys_say_what_they_are(folder: Path) -> None:
    lines = failure(folder, "seed: 1")
    assert [line.split(";")[0] for line in lines] == [
        "scenario.yaml:1:1: bundle: the key 'bundle' is missing",
        "scenario.yaml:1:1: downlink: the key 'downlink' is missing",
        "scenario.yaml:1:1: uplink: the key 'uplink' is missing",
    ]
    assert lines[0].endswith("; folder of the model with its recording and calibration, relative to this file")


@pytest.mark.parametrize("text", ["- a", "5", "text", "null"])
def test_a_file_that_is_no_mapping(folder: Path, text: str) -> None:
    (line,) = failure(folder, text)
    assert "expected the keys of a scenario: name, bundle, requests, " in line


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = """\
    bundle: [1]
    seed: -1
    seed: 3
    devices: {count: 0, hardware: abacus, arrivals: {name: periodic, rate_hz: 0}, policy: wrong}
    uplink: {name: constant, mbps: -5, dely_ms: 1}
    downlink: {name: trace, trace: nowhere.txt, scale: 1}
    policies:
      right: local
      wrong: {name: offload, split: x, codec: "jpeg:quality=1000"}
    """
    lines = failure(folder, text)
    where = [line.split(": ")[1] for line in lines]
    assert where == [
        "bundle",
        "seed",
        "seed",
        "devices.count",
        "devices.hardware",
        "devices.arrivals.rate_hz",
        "uplink.mbps",
        "uplink.dely_ms",
        "downlink.trace",
        "policies.wrong.split",
        "policies.wrong.codec",
    ], "\n".join(lines)


def test_a_class_from_outside_is_checked_like_the_shipped_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.py").write_text(
        "from splitexit.policies.local import Local\n"
        "class Mine(Local):\n"
        "    def __init__(self, *, power: int, paths: list[str] = []) -> None:\n"
        "        if power > 3:\n"
        "            raise ValueError(f'power {power} is too much; at most 3')\n"
        "        self.power, self.paths = power, paths\n"
        "class Odd(Local):\n"
        "    def __init__(self, *, other: 'Nowhere') -> None: ...\n"
    )
    (folder / "broken.py").write_text("raise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(folder)
    scenario = load(write(folder, MINIMAL + 'policies: {mine: {name: "mine:Mine", power: 2}}'))
    mine: Any = scenario.policies["mine"].create()
    assert (mine.power, mine.paths) == (2, [])
    assert failure(folder, MINIMAL + 'policies: {mine: {name: "mine:Mine", power: 4}}') == [
        "scenario.yaml:4:18: policies.mine: power 4 is too much; at most 3"
    ]
    assert (
        "power: found 'x'; expected a whole number"
        in failure(folder, MINIMAL + 'policies: {mine: {name: "mine:Mine", power: x}}')[0]
    )
    assert (
        "cannot be imported: RuntimeError: two lines"
        in failure(folder, MINIMAL + 'policies: {mine: {name: "broken:X"}}')[0]
    )
    assert (
        "parameters that a scenario cannot give"
        in failure(folder, MINIMAL + 'policies: {mine: {name: "mine:Odd", other: 1}}')[0]
    )
    sys.modules.pop("mine")


def test_overrides_take_the_place_of_values(folder: Path) -> None:
    overrides = [
        "uplink.scale=5",
        "requests=1e2",
        "devices.arrivals={name: poisson, rate_hz: 2}",
        "edge.workers=4",
        "policies.image.codec=png",
        "policies.new=random",
        "policies.early.thresholds.1=0.5",
        "name='1'",
        "requests=50",
    ]
    scenario = load(write(folder, FULL), overrides)
    assert scenario.uplink.parameters["scale"] == 5.0
    assert scenario.requests == 50, "the last of several counts"
    assert isinstance(scenario.devices.arrivals.create(), Poisson)
    assert scenario.edge.workers == 4
    assert scenario.policies["image"].parameters["codec"] == "png"
    assert list(scenario.policies) == ["early", "image", "local", "new"]
    assert scenario.policies["early"].parameters["thresholds"] == [0.9, 0.5]
    assert scenario.name == "1"


def test_an_override_reaches_below_what_is_left_out(folder: Path) -> None:
    scenario = load(write(folder, MINIMAL), ["edge.workers=4", "devices.count=2"])
    assert scenario.edge.workers == 4
    assert scenario.devices.count == 2


def test_an_override_below_a_name_or_label_keeps_the_rest(folder: Path) -> None:
    scenario = load(write(folder, FULL), ["devices.policy.exits=[1, 2]", "policies.local.name=random"])
    assert scenario.devices.policy.parameters["thresholds"] == [0.9, 1.0]
    assert scenario.devices.policy.parameters["exits"] == [1, 2]
    assert scenario.policies["early"].parameters["exits"] == [0, 1], "the label's own entry stays"
    assert scenario.policies["local"].name == "random"
    bare = load(write(folder, MINIMAL), ["devices.policy=threshold", "devices.policy.threshold=0.5"])
    assert bare.devices.policy.parameters["threshold"] == 0.5


def test_labels_may_hold_dots(folder: Path) -> None:
    scenario = load(write(folder, MINIMAL + "policies: {q.75: {name: offload}}"), ["policies.q.75.split=1"])
    assert scenario.policies["q.75"].parameters["split"] == 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("uplnk.mbps=5", "--set uplnk.mbps=5: uplnk: unknown key 'uplnk'; did you mean 'uplink'?"),
        ("devices.polcy=local", "--set devices.polcy=local: devices.polcy: unknown key 'polcy'; did you mean"),
        ("downlink.mbs=5", "--set downlink.mbs=5: downlink.mbs: unknown key 'mbs'; did you mean 'mbps'?"),
        ("downlink.mbps=-5", "--set downlink.mbps=-5: downlink.mbps: found -5; expected a number greater than 0"),
        ("downlink.mbps=fast", "--set downlink.mbps=fast: downlink.mbps: found 'fast'; expected a number"),
        ("requests", "--set requests: expected KEY=VALUE, for example uplink.mbps=5"),
        ("requests=", "--set requests=: requests: found nothing (null); expected a whole number"),
        ("requests.x=1", "--set requests.x=1: requests: found 500; there is no key below it"),
        ("requests=[1", "--set requests=[1: requests: not YAML: "),
        ("requests=&a 1", "--set requests=&a 1: requests: an anchor, '&a'; take it out"),
        ("policies.early.exits.2=1", "--set policies.early.exits.2=1: policies.early.exits: has no entry '2'; "
                                     "expected 0 to 1"),
        ("downlink.mbps.x=1", "--set downlink.mbps.x=1: downlink.mbps: found 13; there is no key below it"),
        ("downlink={name: constant, mbps: 0}", "--set downlink={name: constant, mbps: 0}: downlink.mbps: found 0;"),
        ("uplink.trace=nowhere.txt", "--set uplink.trace=nowhere.txt: uplink.trace: {folder}/nowhere.txt: no such"),
        ("=1", "--set =1: unknown key ''"),
        ("na\nme=1", r"--set na\nme=1: na\nme: unknown key 'na\nme'; did you mean 'name'?"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named_as_the_place(folder: Path, override: str, expected: str) -> None:
    (line,) = failure(folder, FULL, [override])
    assert line.startswith(expected.replace("{folder}", str(folder))), line


def test_paths_start_at_the_file_and_for_overrides_at_the_working_directory_if_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = folder / "here"
    here.mkdir()
    for place in (here, folder):
        (place / "both.txt").write_text("0 5\n")
    monkeypatch.chdir(here)
    path = write(folder, FULL)
    assert load(path).uplink.parameters["trace"] == folder / "lte.txt"
    assert load(path, ["uplink.trace=both.txt"]).uplink.parameters["trace"] == here / "both.txt"
    assert load(path, ["uplink.trace=lte.txt"]).uplink.parameters["trace"] == folder / "lte.txt"
    assert load(path, [f"uplink.trace={folder}/both.txt"]).uplink.parameters["trace"] == folder / "both.txt"
    assert load(path, ["bundle=."]).bundle == here
    assert load(Path("../scenario.yaml")).uplink.parameters["trace"] == folder / "lte.txt"


def test_resolved_is_everything_and_reads_back_equal_from_anywhere(folder: Path) -> None:
    scenario = load(write(folder, FULL), ["devices.policy=offload", "uplink.trace=lte.txt"])
    resolved = scenario.resolved()
    assert list(resolved) == list(Scenario.model_fields)
    assert resolved["devices"]["policy"] == {"name": "offload", "split": 0, "codec": "jpeg"}
    assert resolved["uplink"]["trace"] == str(folder / "lte.txt")
    (folder / "runs").mkdir()
    again = load(write(folder / "runs", dump(resolved), "config.yaml"))
    assert again == scenario
    assert hash(again) == hash(scenario)
    assert again.digest() == scenario.digest()


def test_the_digest_is_of_content_not_of_places(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "lte.txt").write_text("0 5\n1 6\n")
    first, second = load(write(folder, FULL)), load(write(elsewhere, FULL))
    assert first.digest() == second.digest()
    assert first != second
    assert load(write(folder, FULL), ["seed=8"]).digest() != first.digest()
    (elsewhere / "lte.txt").write_text("0 5\n1 7\n")
    assert second.digest() != first.digest()


def test_policies_by_label(folder: Path) -> None:
    scenario = load(write(folder, FULL))
    assert scenario.labels() == ["early", "image", "local"]
    assert scenario.policy("image") is scenario.policies["image"]
    assert scenario.policy("random") == Spec("policy", "random", {})
    assert scenario.policy_label == "early"
    with pytest.raises(UnknownNameError, match=r"unknown policy 'imag'; did you mean 'image'\?"):
        scenario.policy("imag")
    with pytest.raises(UnknownNameError, match=r"unknown policy 'loca'; did you mean 'local' or 'offload'"):
        scenario.policy("loca")


def test_the_devices_own_policy_by_label(folder: Path) -> None:
    own = load(write(folder, MINIMAL), ["devices.policy={name: threshold, threshold: 0.5}"])
    assert own.policy_label == "threshold"
    assert own.policy("threshold") == own.devices.policy
    clash = load(write(folder, FULL), ["devices.policy={name: threshold}", "policies.threshold={name: local}"])
    assert clash.policy_label == "own"
    assert clash.policy(clash.policy_label) == clash.devices.policy
    assert clash.policy("threshold").name == "local"


def test_without_policies_every_shipped_one_that_needs_nothing_is_meant(folder: Path) -> None:
    scenario = load(write(folder, MINIMAL))
    assert set(scenario.labels()) <= set(POLICIES.names())
    assert {"local", "threshold", "oracle"} <= set(scenario.labels())
    assert all(scenario.policy(label).create() for label in scenario.labels())


@pytest.mark.usefixtures("imports_forgotten")
def test_a_policy_that_needs_parameters_is_refused_by_its_bare_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "needy.py").write_text(
        "from splitexit.policies.local import Local\n"
        "class Needy(Local):\n"
        "    def __init__(self, *, power: int) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(POLICIES.table, "needy", "needy:Needy")
    scenario = load(write(folder, MINIMAL))
    assert "needy" not in scenario.labels()
    with pytest.raises(InputError, match="policy 'needy': the key 'power' is missing; give it under `policies:`"):
        scenario.policy("needy")


@pytest.mark.parametrize("kind", ZOOS)
def test_every_shipped_member_can_be_named(kind: str) -> None:
    registry, interface = ZOOS[kind]
    for name in registry.names():
        assert issubclass(load_class(kind, name), interface)
    with pytest.raises(InputError, match=f"is not a {kind}; expected a subclass of splitexit"):
        load_class(kind, "splitexit.bundle:Bundle")
    assert Link in (entry[1] for entry in ZOOS.values())
