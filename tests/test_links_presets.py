"""Named links: what they stand for, and that a scenario's two directions get their own numbers."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from splitexit.errors import InputError, ScenarioError
from splitexit.links import LINKS
from splitexit.links.presets import FiveG, Lte, Preset
from splitexit.scenario import load

PRESETS = [name for name in LINKS.names() if issubclass(LINKS.load(name), Preset)]
TESTS = Path(__file__).parents[2] / "shared" / "traces" / "speedtest_5g" / "dataset_speedtest_ookla.csv"


def test_the_names() -> None:
    assert PRESETS == ["3g", "lte", "5g", "wifi", "ethernet", "lora"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_is_in_the_docstring(name: str) -> None:
    """With a source, or as what follows from one."""
    kind: Any = LINKS.load(name)
    said = (kind.__doc__ or "").partition("Args:")[0]
    for mbps, delay_ms in (kind.UP, kind.DOWN):
        shown = {f"{mbps:g}", f"{mbps * 1e3:g}"}, {f"{delay_ms:g}", f"{delay_ms * 1e3:g}", f"{delay_ms / 1e3:g} s"}
        assert all(any(text in said for text in texts) for texts in shown) or delay_ms == 0
    assert any(source in said for source in ("et al.", "IEEE 802.3", "LoRa Alliance"))


def test_both_directions() -> None:
    assert (Lte().mean_bps, Lte(direction="down").mean_bps) == (5.85e6, 13e6)
    assert Lte().finish_s(0.0, 585_000) == pytest.approx(0.8)
    with pytest.raises(InputError, match="direction 'sideways': expected up or down"):
        Lte(direction="sideways")  # type: ignore[arg-type]


def test_lora_s_rate_follows_from_its_modulation() -> None:
    """SF · BW / 2^SF · 4/5."""
    assert LINKS.load("lora")().mean_bps == pytest.approx(7 * 125_000 / 2**7 * 4 / 5, rel=0.001)


@pytest.mark.skipif(not TESTS.is_file(), reason="no collection of traces beside the repository")
def test_5g_is_the_median_of_its_tests() -> None:
    with TESTS.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["radio_type"] == "5G-NSA-Low-Band"]
    near = [row for row in rows if float(row["UE_Server_distance_km"]) < 50]
    assert (len(rows), len(near)) == (570, 12)
    assert FiveG.UP[0] == pytest.approx(median(float(row["uplink_Mbps"]) for row in rows), abs=0.05)
    assert FiveG.DOWN[0] == pytest.approx(median(float(row["downlink_Mbps"]) for row in rows), abs=0.05)
    assert FiveG.UP[1] == FiveG.DOWN[1] == median(float(row["latency_ms"]) for row in near) / 2


def scenario(folder: Path, links: str) -> Path:
    """A file of the least that a scenario needs."""
    path = folder / "scenario.yaml"
    path.write_text(f"bundle: nowhere\n{links}\n")
    return path


@pytest.mark.parametrize("links", ["uplink: lte\ndownlink: lte", "uplink: {name: lte}\ndownlink: {name: lte}"])
def test_a_scenario_s_links_know_their_direction(tmp_path: Path, links: str) -> None:
    """Without being told."""
    found = load(scenario(tmp_path, links))
    assert (found.uplink.create().mbps, found.downlink.create().mbps) == (5.85, 13.0)
    assert found.downlink.plain()["direction"] == "down"
    again = load(scenario(tmp_path, links), ["downlink.direction=up", "uplink.jitter_ms=3"])
    assert (again.downlink.create().mbps, again.uplink.create().jitter_ms) == (5.85, 3.0)


def test_only_links_that_have_a_direction_are_given_one(tmp_path: Path) -> None:
    found = load(scenario(tmp_path, "uplink: {name: constant, mbps: 1}\ndownlink: ethernet"))
    assert "direction" not in found.uplink.plain()


def test_a_scenario_says_what_is_wrong_with_a_link(tmp_path: Path) -> None:
    """Every problem of both, in one go."""
    wrong = "uplink: {name: lte, mbps: 3}\ndownlink: {name: constant, mbps: 1, jitter: gamma}"
    with pytest.raises(ScenarioError) as caught:
        load(scenario(tmp_path, wrong))
    assert len(str(caught.value).splitlines()) == 2
    assert "unknown key 'mbps'" in str(caught.value)
    assert "'normal', 'pareto-normal' or 'uniform'" in str(caught.value)
