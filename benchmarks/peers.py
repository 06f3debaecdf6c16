"""The other simulators' own environment, benchmarks/.venv: made and filled on first use, pinned by requirements.txt."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from benchmarks.errors import LeftOut

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
VENV = HERE / ".venv"
YAFS = "yafs"
NEEDED_BY_YAFS = ("networkx", "numpy", "pandas", "simpy", "tqdm")


def python_with(package: str, yafs: Path | None = None) -> tuple[Path, Path | None]:
    """The interpreter that can import the package, and a folder for its path; raises LeftOut.

    Args:
        package: its name in requirements.txt, or "yafs".
        yafs: a checkout of YAFS, which no package index has.
    """
    if package == YAFS:
        path = _sources(yafs)
        needed: tuple[str, ...] = NEEDED_BY_YAFS
    else:
        path, needed = None, (package, "numpy")  # the worker needs numpy itself
    for name in needed:
        _install(name)
    return _python(), path


def _sources(checkout: Path | None) -> Path:
    if checkout is None:
        raise LeftOut("on no package index; --yafs FOLDER takes a checkout of github.com/acsicuib/YAFS")
    if not (checkout / "src" / "yafs").is_dir():
        raise LeftOut(f"{checkout} has no folder src/yafs; --yafs expects a checkout of github.com/acsicuib/YAFS")
    return checkout.resolve() / "src"


@cache
def _python() -> Path:
    path = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not path.exists():
        _say(f"making {VENV.relative_to(HERE.parent)}")
        _run([sys.executable, "-m", "venv", str(VENV)], "no environment could be made")
    return path


@cache
def _install(package: str) -> None:
    asks = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([_python(), "-c", asks], capture_output=True, text=True)
    if found.stdout.strip() == _pin(package):
        return
    _say(f"installing {package} {_pin(package)}")
    pip = [str(_python()), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1"]
    _run([*pip, "-c", str(REQUIREMENTS), package], f"{package} could not be installed")


def _pin(package: str) -> str:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise LeftOut(f"{failure}: {lines[-1].strip() if lines else f'code {done.returncode}'}")


def _say(text: str) -> None:
    print(f"benchmarks: {text}", file=sys.stderr, flush=True)
