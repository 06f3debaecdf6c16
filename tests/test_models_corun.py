"""What busy processes cost each other."""

import os
from itertools import pairwise

import pytest

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.errors import ProcessError
from splitexit.models import corun
from tests.models_tiny import fresh_bundle


@pytest.mark.parametrize(
    ("cores", "numbers"),
    [(1, [0, 1, 2]), (2, [0, 1, 2, 3]), (4, [0, 1, 2, 3, 4, 5]), (16, [0, 1, 2, 4, 8, 15, 16, 17])],
)
def test_numbers_of_others_reach_past_the_last_core(cores, numbers):
    assert corun.company(cores) == numbers


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Several processes that load torch at once on a busy machine may take minutes."""
    monkeypatch.setattr(corun, "START_S", 600.0)


def test_company_never_speeds_up(tmp_path, monkeypatch):
    """From 1 on it never falls."""
    bundle = fresh_bundle(tmp_path)
    seen = []
    monkeypatch.setattr(corun, "available_cores", lambda: 2)
    factors = corun.measure_corun(bundle, rounds=2, progress=lambda done, total: seen.append((done, total)))
    assert list(factors) == [0, 1, 2, 3]
    assert factors[0] == 1.0
    assert all(a <= b for a, b in pairwise(factors.values()))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    calibration = Calibration.load(_with(bundle, factors).calibration)
    assert calibration.corun == factors


def _with(bundle: Bundle, factors: dict[int, float]) -> Bundle:
    from splitexit.models import calibrate

    images = calibrate.read_images(bundle, None)
    rpc = calibrate.TYPICAL_RPC
    calibrate.calibrate(bundle, [], images, repetitions=10, rpc=rpc, corun=factors).save(bundle.calibration)
    return bundle


def test_factors_are_of_the_same_round(tmp_path, monkeypatch):
    """A machine that gets slower round by round changes none of them; noise does not make company faster."""
    speed = iter([9, 9, 9, 1, 1.5, 1.4, 10, 15, 14, 100, 150, 140])
    monkeypatch.setattr(corun, "company", lambda _: [0, 1, 2])
    monkeypatch.setattr(corun, "_mean_s", lambda _: next(speed))
    assert corun.measure_corun(fresh_bundle(tmp_path), rounds=3) == {0: 1.0, 1: 1.5, 2: 1.5}


def test_no_process_is_left_behind(tmp_path):
    bundle = fresh_bundle(tmp_path)
    with pytest.raises(ZeroDivisionError), corun._others(bundle.path, 2) as others:
        corun._let_compute(others, 2)
        raise ZeroDivisionError
    import multiprocessing

    assert multiprocessing.active_children() == []


def test_a_process_that_cannot_load_is_one_line(tmp_path):
    with pytest.raises(ProcessError, match="ended at once"), corun._others(tmp_path / "none", 1):
        pass


def test_cores_are_those_that_may_be_used():
    assert 1 <= corun.available_cores() <= (os.cpu_count() or 1)
