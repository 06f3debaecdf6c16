"""Fixtures that several folders of tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from splitexit.bundle import Bundle


@pytest.fixture(scope="session")
def live_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small real bundle for the live world (tests.live_bundle)."""
    from tests.live_bundle import make_bundle  # imports torch

    return make_bundle(tmp_path_factory.mktemp("live") / "bundle")
