"""The example with a stock library runs, where that library is installed; and without it, nothing else needs it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.test_floors import ROOT


def test_a_stock_library_learns_in_the_environment() -> None:
    pytest.importorskip("stable_baselines3", reason="pip install stable-baselines3")
    command = [sys.executable, "docs/rl_example.py", "scenarios/quickstart.yaml", "--steps=512", "--requests=60"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(PPO|always .*?)\s+(-?\d\.\d{3})$", done.stdout, re.MULTILINE))
    assert len(found) == 3
    assert all(-1.6 <= float(reward) <= 1.0 for reward in found.values())
