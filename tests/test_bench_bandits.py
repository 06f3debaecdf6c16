"""`splitexit bench bandits`: policies driven through a recording, what they are held to, and the command."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit.bench import bandits_show as show
from splitexit.bench.bandit_replay import Replay, Table, play
from splitexit.bench.bandits import SWEEP, Bandits, Terms
from splitexit.bundle import Bundle
from splitexit.cli import run
from splitexit.decision import Plan
from splitexit.experiment import Experiment
from splitexit.policies.splitee import SplitEE
from splitexit.results import column, to_table
from splitexit.sim import simulate
from tests import synthetic

PAIRS = {(0, "jpeg"): 900, (1, "uint8"): 400, (2, "uint8"): 400, (3, "uint8"): 300}


def folder(path: Path, samples: int = 150, context: bool = False) -> Path:
    """A bundle of four exits."""
    model = synthetic.spec(4)
    recording = synthetic.recording(model, samples, PAIRS)
    for part in recording.parts.values():
        part.context = np.array(["", "noise=1"] * (samples // 2)) if context else None
    return synthetic.write_bundle(path, model, recording, synthetic.calibration(model, pairs=list(PAIRS)))


def bench(path: Path, context: bool = False, shuffles: int = 3, **terms: Any) -> Bandits:
    return Bandits.open(Bundle.open(folder(path, context=context)), Terms(**terms), shuffles)


@cache
def document() -> dict[str, Any]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as path:
        found = bench(Path(path)).run(400, (0.1, 0.5))
    return {"name": "x", "bundle": "b", "command": "splitexit bench bandits b", **found}


def test_the_table_is_what_the_decision_loop_does(tmp_path: Path) -> None:
    """Arm by arm and sample by sample: sent or not, right or not, and the policy's own reward."""
    made = bench(tmp_path)
    for exit_ in range(4):
        policy = made._prepared(SplitEE, 0.5)
        policy.arms = [exit_]
        policy.prepare(made.setting, np.random.default_rng(0))
        table, replay = Table.of(policy, made.part, 3), Replay(policy, made.setting, made.part)
        earned = 0.0
        for position in range(len(made.part)):
            answer = replay.request(position)
            reward, cost, right = (values[position, 0] for values in table.fixed)
            assert table.sent[position, 0] == (answer.answered_by == "edge")
            assert answer.reading is not None
            assert right == (answer.reading.prediction == made.part.label[position])
            assert cost == pytest.approx(policy.known_arms[0].cost + 0.5 * (answer.answered_by == "edge"))
            earned += float(policy._totals[0, 0])
            policy._totals[:] = 0.0
            assert reward <= table.ceiling[position] + 1e-12
        assert earned == pytest.approx(table.fixed.reward.sum())


def test_what_is_replayed_is_what_the_simulator_does(tmp_path: Path) -> None:
    """Without queues and losses both give a policy the same samples the same answers."""
    world: Experiment = synthetic.experiment(
        tmp_path,
        requests=120,
        policies={"splitee": "splitee"},
        devices__policy="splitee",
        devices__arrivals={"name": "periodic", "rate_hz": 1.0},
    )
    rows = to_table(simulate(world, "splitee", 0))
    positions = list(world.workload(0, 0).positions)
    replay = Replay(world.decider("splitee", 0, 0).policy, world.setting(), world.recording.test)
    answers = [replay.request(position) for position in positions]
    assert [answer.reading and answer.reading.prediction for answer in answers] == column(rows, "prediction").tolist()
    assert [answer.split for answer in answers] == column(rows, "split").tolist()


def test_nobody_beats_the_most_of_every_request(tmp_path: Path) -> None:
    found = bench(tmp_path).regret(300)
    for regret in found["policies"].values():
        assert (np.diff(regret["oracle"]["mean"]) >= -1e-9).all()


def test_every_policy_meets_the_same_samples(tmp_path: Path) -> None:
    made = bench(tmp_path)
    first, again = made.order(0, 400), made.order(0, 400)
    assert (first == again).all()
    assert sorted(first[:150]) == list(range(150)), "every sample once before any comes again"
    assert (made.order(1, 400) != first).any()


def test_play_names_arm_and_sending(tmp_path: Path) -> None:
    made = bench(tmp_path)
    policy = made._prepared(SplitEE, 0.5)
    played = play(policy, made.setting, made.part, range(4), {e: e for e in range(4)})
    assert played.arms.tolist() == [0, 1, 2, 3]
    assert not played.sent[3]
    with pytest.raises(NotImplementedError, match="no time"):
        Replay(policy, made.setting, made.part).utility(Plan())


def test_contexts_bring_their_bandit(tmp_path: Path) -> None:
    assert "i_splitee" not in bench(tmp_path / "a").contenders(0.5)
    assert "i_splitee" in bench(tmp_path / "b", context=True).contenders(0.5)


def test_hi_lcb_stands_at_the_best_early_exit(tmp_path: Path) -> None:
    """Where running everything on the device is the best arm, there is no place for it."""
    found = bench(tmp_path / "a", offload=0.1).contenders(0.1)
    exits = list(found["splitee"].arm_of)
    assert found["hi_lcb"].make().exit == exits[found["splitee"].table.best]  # type: ignore[attr-defined]
    assert "hi_lcb" not in bench(tmp_path / "b", alpha=1.1).contenders(1e6)


def test_the_document_holds_curves_and_points() -> None:
    found = document()
    assert found["regret"]["at"][-1] == found["horizon"] == 400
    assert [point["offload"] for point in found["sweep"]] == [0.1, 0.5]
    for regret in found["regret"]["policies"].values():
        assert all(
            low <= mean <= high
            for low, mean, high in zip(*(regret["fixed"][k] for k in ("low", "mean", "high")), strict=True)
        )
    point = found["sweep"][1]
    assert point["always_final"]["cost"] == pytest.approx(0.08 * 4 + 0.02)
    splitee = point["policies"]["splitee"]
    assert splitee["saved"]["mean"] == pytest.approx(1 - splitee["cost"]["mean"] / point["always_final"]["cost"])
    lost = 100 * (point["always_final"]["accuracy"] - splitee["accuracy"]["mean"])
    assert splitee["lost_points"]["mean"] == pytest.approx(lost)
    assert (SWEEP[0], SWEEP[-1], len(SWEEP)) == (0.1, 0.6, 11)


def test_sending_costs_more_where_it_costs_more() -> None:
    cheap, dear = (point["arms"] for point in document()["sweep"])
    for low, high in zip(cheap, dear, strict=True):
        assert high["cost"] - low["cost"] == pytest.approx(0.4 * high["sent"])


def test_the_table_names_everybody_and_how() -> None:
    lines = show.rows(document())
    assert [len(line) for line in lines] == [len(show.HEADS)] * len(lines)
    assert [line[0] for line in lines[:3]] == ["always final", f"always exit {show.at(document())['best']}", "splitee"]
    text = show.markdown(document())
    assert "splitexit bench bandits b" in text
    assert "3 shuffles of 150 test samples: 400 requests" in text
    assert len(show.heads(80)) == 7
    assert show.heads(120) == show.HEADS


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from splitexit.report.bandits import picture

    picture(document(), "title", tmp_path / "bandits.png")
    assert (tmp_path / "bandits.png").stat().st_size > 20_000


def test_the_command_writes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where, out = folder(tmp_path / "bundle"), tmp_path / "out"
    options = ["--shuffles", "2", "--horizon", "50", "--sweep", "0.2", "--offload", "0.2", "--alpha", "fitted"]
    assert run(["bench", "bandits", str(where), *options, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["horizon"] == 50
    assert printed["terms"]["alpha"] in np.round(np.arange(0.5, 1.0, 0.05), 2)
    assert json.loads((out / "summary.json").read_text()) == printed
    assert (out / "table.md").exists()
    assert run(["bench", "bandits", str(where), *options, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip().endswith(str(out))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--alpha", "high"], "--alpha: expected a number from 0, or fitted"),
        (["--sweep", "0.1,x"], "--sweep: expected numbers"),
        (["--cost", "layers"], "--cost: expected exits or macs"),
        (["--mu", "0"], "--mu: expected more than 0"),
        (["--codec", "raw"], "codec 'raw' is on offer at the split of no exit"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["bench", "bandits", str(folder(tmp_path / "bundle")), *options, "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert code != 0
    assert says in " ".join(error.split())
    assert "Traceback" not in error
