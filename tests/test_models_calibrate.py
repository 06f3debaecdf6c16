"""Calibrations hold a plausible time for every part."""

import numpy as np
import pytest

from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.errors import ArtifactError, UsageError
from splitexit.models import calibrate, record
from tests.models_tiny import fresh_bundle, stripes

PAIRS = [(0, "png"), (1, "uint8"), (2, "raw")]
RPC = Rpc(111, 222, Distribution.constant(1e-3))


@pytest.fixture
def bundle(tmp_path):
    return fresh_bundle(tmp_path)


def measure(bundle, **options):
    images = calibrate.read_images(bundle, stripes("test"))
    return calibrate.calibrate(bundle, PAIRS, images, repetitions=10, rpc=RPC, **options)


def test_every_part_has_its_time(bundle):
    measure(bundle, command="splitexit calibrate").save(bundle.calibration)
    calibration = Calibration.load(bundle.calibration, bundle.spec)
    assert (len(calibration.stages), len(calibration.exits)) == (3, 3)
    assert set(calibration.encode) == set(calibration.decode) == set(PAIRS)
    parts = [*calibration.stages, *calibration.exits, *calibration.encode.values(), *calibration.decode.values()]
    assert all(1e-7 < part.quantiles[0] <= part.quantiles[-1] < 5 for part in parts)
    assert calibration.weights_sha256 == bundle.spec.weights_sha256
    assert calibration.made["command"] == "splitexit calibrate"


def test_how_it_was_measured_is_written_down(bundle):
    calibration = measure(bundle, gap_s=0.001, corun={0: 1.0, 1: 1.2})
    made = calibration.made
    assert made["gap_ms"] == 1.0
    assert 0.05 < made["gap_factor"] < 20
    assert calibration.corun == {0: 1.0, 1: 1.2}
    assert set(made["check"]) == {"measured_ms", "dependent_ms", "independent_ms"}
    for statistics in made["check"].values():
        assert list(statistics) == ["mean", "p50", "p95", "p99"]
        assert 0 < statistics["p50"] <= statistics["p95"] <= statistics["p99"]


def test_every_sample_comes_after_a_pause_and_some_once_more_at_once(bundle, monkeypatch):
    did = []
    run = calibrate.Chain.run

    def noted(self, image, clock):
        did.append("run")
        run(self, image, clock)

    monkeypatch.setattr(calibrate.Chain, "run", noted)
    monkeypatch.setattr(calibrate, "sleep", lambda seconds: did.append(seconds))
    calibration = measure(bundle, gap_s=0.5)
    counted = did[did.index(0.5) :]
    assert counted.count(0.5) == calibrate.WARM_UP + 10
    assert counted.count("run") == calibrate.WARM_UP + 10 + (calibrate.WARM_UP + 10) / calibrate.CLOSE_EVERY
    assert "".join("p" if what == 0.5 else "r" for what in counted).startswith("prrprprprprprr")
    did.clear()
    assert "gap_factor" not in measure(bundle, gap_s=0.0).made
    assert did.count("run") == calibrate.WARM_UP + 10
    assert calibration.made["gap_ms"] == 500.0


def test_a_slow_phase_of_the_machine_is_dependence(bundle, monkeypatch):
    """Every other ten samples, all parts are slower; nothing else varies but by noise that is small against it."""
    from time import sleep

    run, at = calibrate.Runtime.run_stages, [0]

    def slow(self, features, first, last):
        at[0] += first == 0
        sleep(0.002 + 0.004 * (at[0] // 10 % 2))
        return run(self, features, first, last)

    monkeypatch.setattr(calibrate.Runtime, "run_stages", slow)
    images = calibrate.read_images(bundle, stripes("test"))
    calibration = calibrate.calibrate(bundle, [], images, repetitions=80, gap_s=0.0, rpc=RPC)
    assert calibration.dependence.within > 0.3
    assert calibration.dependence.lag1 > 0.3


def test_a_stage_costs_what_it_takes(bundle, monkeypatch):
    """A stage made slower by 5 ms shows it, and no other part does."""
    from time import sleep

    run = calibrate.Runtime.run_stages

    def slow(self, features, first, last):
        sleep(0.005 * (first == 1))
        return run(self, features, first, last)

    monkeypatch.setattr(calibrate.Runtime, "run_stages", slow)
    calibration = measure(bundle)
    assert calibration.stages[1].median > 0.005
    assert max(calibration.stages[0].median, calibration.exits[1].median) < 0.005


def test_batches_are_relative_to_one_sample(bundle):
    measure(bundle).save(bundle.calibration)
    calibration = Calibration.load(bundle.calibration, bundle.spec)
    assert tuple(calibration.batch) == calibrate.BATCH_SIZES
    assert calibration.batch[1] == 1.0
    assert 1.0 <= calibration.batch_factor(3) <= calibration.batch[32] < 64


def test_a_network_with_a_fixed_cost_gains_by_batching(bundle, monkeypatch):
    """A pass of 2 s and another second for every sample: 32 samples take 34/3 of one; the warm-up is left out."""
    clock = [0.0]

    def net(batch):
        clock[0] += 2.0 + len(batch) + 100.0 * (clock[0] < 100.0)

    monkeypatch.setattr(calibrate.multi_exit, "load", lambda _: net)
    monkeypatch.setattr(calibrate, "perf_counter", lambda: clock[0])
    factors = calibrate.measure_batch(bundle, [np.zeros((1, 12, 12), np.float32)])
    assert factors == {n: pytest.approx((2 + n) / 3, rel=1e-3) for n in calibrate.BATCH_SIZES}


def test_batches_alone_are_measured_anew(bundle, monkeypatch):
    before = measure(bundle, command="splitexit calibrate")
    before.save(bundle.calibration)
    before = Calibration.load(bundle.calibration)
    monkeypatch.setattr(calibrate, "measure_batch", lambda *_: {1: 1.0, 2: 1.5})
    after = calibrate.calibrate_batch(bundle, [], command="splitexit calibrate --only-batch")
    assert after.batch == {1: 1.0, 2: 1.5}
    assert (after.stages, after.encode, after.rpc) == (before.stages, before.encode, before.rpc)
    assert after.made["command"] == "splitexit calibrate"
    assert after.made["batch"]["command"] == "splitexit calibrate --only-batch"


def test_batches_alone_need_a_calibration(bundle):
    with pytest.raises(ArtifactError, match=r"calibration\.json"):
        calibrate.calibrate_batch(bundle, [])


def test_warm_up_is_left_out(bundle):
    seen = []
    measure(bundle, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == calibrate.WARM_UP + 10
    assert seen[-1] == (10, 10)


def test_the_machine_is_described():
    machine = calibrate.describe_machine()
    assert machine["threads"] == 1
    assert machine["cpu"]
    assert machine["torch"]


def test_what_a_call_costs_is_kept(bundle):
    assert calibrate.present_rpc(bundle) == calibrate.TYPICAL_RPC
    measure(bundle).save(bundle.calibration)
    assert calibrate.present_rpc(bundle) == RPC


def test_recorded_pairs_are_the_default(bundle):
    assert calibrate.recorded_pairs(bundle) == []
    record.record(bundle, record.read_parts(bundle, stripes(), stripes("test"), limit=2), PAIRS)
    assert calibrate.recorded_pairs(bundle) == PAIRS


def test_images_come_from_samples_else_from_noise(bundle):
    noise = calibrate.read_images(bundle, None)
    assert noise[0].shape == (1, 12, 12)
    record.write_samples(bundle, record.read_parts(bundle, stripes(), stripes("test"))[1], 4)
    samples = calibrate.read_images(bundle, None)
    assert len(samples) == 4
    np.testing.assert_array_equal(samples[0], calibrate.read_images(bundle, stripes("test"))[0])


def test_images_of_another_size_are_refused(bundle, tmp_path):
    from PIL import Image

    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.new("L", (9, 9)).save(tmp_path / "set" / "a" / "0.png")
    with pytest.raises(UsageError, match="the network takes"):
        calibrate.read_images(bundle, str(tmp_path / "set"))
