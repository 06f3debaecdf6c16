"""One small real bundle for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitexit.bundle import Bundle
from tests.live_bundle import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """See tests.live_bundle."""
    folder: Path = tmp_path_factory.mktemp("live") / "bundle"
    return make_bundle(folder)
