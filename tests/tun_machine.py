"""Whether this machine can have real networks between namespaces, and the skip that says why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from splitexit.errors import UsageError
from splitexit.live.network import NETWORKS


def why_not(network: str) -> str:
    """Empty where it can."""
    try:
        NETWORKS.load(network).require()
    except UsageError as error:
        return str(error)
    return ""


needs_tun = pytest.mark.skipif(bool(why_not("tun")), reason=why_not("tun") or "-")
needs_tbf = pytest.mark.skipif(bool(why_not("tbf")), reason=why_not("tbf") or "-")

NAMESPACES = Path("/var/run/netns")


def spaces_of(pid: int) -> list[str]:
    """Names of the namespaces that a process has made."""
    return sorted(file.name for file in NAMESPACES.glob(f"splitexit-{pid}-*"))


def own_spaces() -> list[str]:
    """Those of this process."""
    return spaces_of(os.getpid())


def in_python(code: str) -> subprocess.Popen[str]:
    """A Python process that runs these lines, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        start_new_session=True,
    )
