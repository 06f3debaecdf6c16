"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from splitexit.bundle import Bundle


hypothesis.settings.register_profile("same", derandomize=True)
if os.environ.get("SPLITEXIT_SEARCH") is None:  # set it to look for new counterexamples; a check must not fail by luck
    hypothesis.settings.load_profile("same")


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def imports_forgotten(tmp_path: Path) -> Iterator[None]:
    """A module that a test wrote and imported is not there for the next test of its process."""
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="session")
def live_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small real bundle for the live world (tests.live_bundle)."""
    from tests.live_bundle import make_bundle  # imports torch

    return make_bundle(tmp_path_factory.mktemp("live") / "bundle")


@pytest.fixture
def corun_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrates the host without starting processes to share its cores with: test_live_host.py does it with them."""
    known = {0: 1.0, 1: 1.0, 2: 1.5}
    monkeypatch.setattr("splitexit.models.corun.measure_corun", lambda bundle, rounds: known)
