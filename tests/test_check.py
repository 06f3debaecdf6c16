"""check: everything wrong with a scenario and its bundle, or with a bundle, at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from splitexit.check import Verdict, check, contenders
from splitexit.experiment import Experiment
from splitexit.scenario import load
from tests.synthetic import calibration, recording, spec, write_bundle, write_scenario


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a good bundle."""
    model = spec()
    write_bundle(tmp_path / "bundle", model, recording(model), calibration(model))
    return tmp_path


def lines(verdict: Verdict, folder: Path) -> list[str]:
    """The lines, without the folder."""
    return [line.replace(f"{folder}/", "") for line in verdict.lines]


def test_a_good_scenario_is_one_line(folder: Path) -> None:
    verdict = check(write_scenario(folder))
    assert verdict.problems == ()
    assert lines(verdict, folder) == [
        "scenario.yaml: fine: 7 policies, 1 x 300 requests, synthetic with 3 stages and 3 exits"
    ]


def test_a_missing_bundle_is_found_beside_other_problems(folder: Path) -> None:
    found = lines(check(write_scenario(folder, bundle="nowhere", requests=-1, uplink__mbps=0)), folder)
    assert [line.split(": ")[1] for line in found] == ["bundle", "requests", "uplink.mbps"]
    assert found[0].startswith("scenario.yaml:2:9: bundle: nowhere: no such bundle (a folder with model.json); ")


def test_overrides_are_checked_too(folder: Path) -> None:
    found = lines(check(write_scenario(folder), ["bundle=nowhere", "edge.workers=0"]), folder)
    assert [line.split(": ")[0] for line in found] == ["--set bundle=nowhere", "--set edge.workers=0"]


@pytest.mark.parametrize("damage", ["recording.parquet", "calibration.json", "model.json"])
@pytest.mark.parametrize("how", ["missing", "cut", "noise", "empty"])
def test_a_damaged_file_of_the_bundle_is_one_line_at_the_bundle_key(folder: Path, damage: str, how: str) -> None:
    path = folder / "bundle" / damage
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes({"cut": content[: len(content) // 2], "noise": bytes(range(256)) * 40, "empty": b""}[how])
    (line,) = lines(check(write_scenario(folder)), folder)
    assert line.startswith(f"scenario.yaml:2:9: bundle: bundle/{damage}"), line


def test_all_files_of_the_bundle_are_looked_at(folder: Path) -> None:
    (folder / "bundle/recording.parquet").write_bytes(b"PAR1")
    (folder / "bundle/calibration.json").write_text("{}")
    assert len(check(write_scenario(folder)).problems) == 2


def test_files_of_another_model_do_not_fit(folder: Path) -> None:
    other = spec(stages=4)
    recording(other).save(folder / "bundle/recording.parquet")
    calibration(other).save(folder / "bundle/calibration.json")
    found = lines(check(write_scenario(folder)), folder)
    assert "recorded 4 exits of 10 classes, the model has 3 of 10" in found[1] + found[0]
    assert "measured 4 stages and 4 exits, the model has 3 and 3" in found[0] + found[1]


def test_every_policy_that_does_not_fit_is_one_line_at_its_label(folder: Path) -> None:
    policies = {
        "local": {"name": "local"},
        "far": {"name": "offload", "split": 9, "codec": "raw"},
        "unrecorded": {"name": "offload", "split": 0, "codec": "png"},
        "uneven": {"name": "threshold", "thresholds": [0.5], "exits": [0, 1]},
        "backward": {"name": "threshold", "exits": [1, 0]},
    }
    found = lines(check(write_scenario(folder, policies=policies, devices__policy="local")), folder)
    assert [line.split(": ")[1] for line in found] == [
        "policies.far",
        "policies.unrecorded",
        "policies.uneven",
        "policies.backward",
    ]
    assert found[0].endswith("split 9: the model has splits 0..2")
    assert "add it with `splitexit record" in found[1]
    assert "thresholds: 1 given for the 2 exits [0, 1]" in found[2]


def test_the_devices_own_policy_is_looked_at(folder: Path) -> None:
    path = write_scenario(folder, devices__policy={"name": "offload", "split": 9, "codec": "raw"})
    (line,) = lines(check(path), folder)
    assert ": devices.policy: split 9: the model has splits 0..2" in line


PHONES = {"phones": {"hardware": "pixel-2-xl"}}


def test_what_fits_no_group_or_only_some_is_one_line(folder: Path) -> None:
    odd = {"odd": {"policy": {"name": "offload", "split": 9, "codec": "raw"}}}
    found = lines(check(write_scenario(folder, groups=PHONES | odd)), folder)
    assert found == [
        f"scenario.yaml:{found[0].split(':')[1]}:7: groups.odd.policy: split 9: the model has splits 0..2",
    ]


def test_a_label_that_fits_no_group_says_which(folder: Path) -> None:
    far = {"far": {"name": "offload", "split": 9, "codec": "raw"}}
    (line,) = lines(check(write_scenario(folder, groups=PHONES, policies=far)), folder)
    assert line.endswith(": policies.far: of the group 'phones': split 9: the model has splits 0..2")


def test_all_devices_are_counted(folder: Path) -> None:
    (line,) = lines(check(write_scenario(folder, groups=PHONES | {"more": {"count": 4}})), folder)
    assert line == "scenario.yaml: fine: 7 policies, 5 x 300 requests, synthetic with 3 stages and 3 exits"


ETHERNET = {"uplink": {"name": "ethernet"}, "downlink": {"name": "ethernet"}}


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (3, "found 3; expected 1 to 2: the model has 3 stages"),
        (
            1,
            "the edge passes raw@1 on, which was not recorded and calibrated; run `splitexit record --pair raw@1`",
        ),
    ],
)
def test_the_split_of_the_cloud_must_fit_the_bundle(folder: Path, split: int, expected: str) -> None:
    (line,) = lines(check(write_scenario(folder, cloud={"split": split, **ETHERNET})), folder)
    assert re.fullmatch(r"scenario.yaml:\d+:10: cloud.split: .*", line)
    assert f": {expected}" in line


def test_links_under_events_must_be_functions_of_time(folder: Path) -> None:
    link = {"name": "token-bucket", "mbps": 1, "depth_kb": 1}
    path = write_scenario(folder, uplink=link, events=[{"kind": "outage", "at_s": 1}])
    (line,) = lines(check(path), folder)
    assert re.match(r"scenario.yaml:\d+:3: events.0: token-bucket: its capacity depends on what is sent", line)


def test_policies_that_nobody_named_need_not_fit(folder: Path) -> None:
    model = spec()
    pairs = {(1, "uint8"): 400}
    write_bundle(folder / "bundle", model, recording(model, pairs=pairs), calibration(model, pairs=list(pairs)))
    path = write_scenario(folder, policies={})
    assert check(path).problems == ()
    labels = contenders(Experiment.open(load(path)))
    assert "offload" not in labels, "there is no JPEG in this recording"
    assert {"local", "threshold", "oracle"} <= set(labels)


def test_contenders_are_the_named_ones(folder: Path) -> None:
    scenario = load(write_scenario(folder))
    assert contenders(Experiment.open(scenario)) == list(scenario.policies)


def test_a_file_that_is_no_yaml(folder: Path) -> None:
    (folder / "x.yaml").write_text("a: [")
    assert lines(check(folder / "x.yaml"), folder)[0].startswith("x.yaml:1:5: a.0: not YAML: ")


def complete(folder: Path) -> Path:
    """The good bundle with weights and samples."""
    bundle = folder / "bundle"
    (bundle / "model.safetensors").write_bytes(b"weights")
    columns = {"image": [b"x"], "label": [1], "sample": [0]}
    pq.write_table(pa.table(columns), bundle / "samples.parquet")
    return bundle


def test_a_good_bundle_is_one_line(folder: Path) -> None:
    assert lines(check(complete(folder)), folder) == [
        "bundle: fine: synthetic with 3 stages and 3 exits, 200 test samples"
    ]


def test_everything_wrong_with_a_bundle(folder: Path) -> None:
    bundle = complete(folder)
    content = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(content | {"weights_sha256": "0" * 64}))
    (bundle / "calibration.json").write_text("[")
    pq.write_table(pa.table({"image": [b"x"]}), bundle / "samples.parquet")
    says = recording(spec())
    says.made = {"digests": {"model.safetensors": "1" * 64}, "codecs": {"bottleneck:channels=4@2": "x"}}
    says.save(bundle / "recording.parquet")
    found = sorted(lines(check(bundle), folder))
    assert [line.split(": ")[0] for line in found] == [
        "bundle/calibration.json:1:2",
        "bundle/model.safetensors",
        "bundle/recording.parquet",
        "bundle/samples.parquet",
    ]
    assert "lacks the column label, sample" in found[3]
    says.made = {"digests": {}, "codecs": {"bottleneck:channels=4@2": "x"}}
    says.save(bundle / "recording.parquet")
    assert any(line.startswith("bundle/codecs.safetensors: missing, but bott") for line in lines(check(bundle), folder))


def test_samples_that_are_no_table(folder: Path) -> None:
    bundle = complete(folder)
    (bundle / "samples.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert lines(check(bundle), folder)[0].startswith("bundle/samples.parquet: not a readable Parquet file (")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    (line,) = check(tmp_path).lines
    assert line.startswith(f"{tmp_path}/model.json: no such file")
