"""Trace files: every file at hand is read, every broken one refused in one line."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from splitexit.errors import TraceError
from splitexit.links import LINKS, _tracefile

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "scenarios" / "traces"
COLLECTION = ROOT.parent / "shared" / "traces"
FOLDERS = {"mahimahi": "mahimahi", "lumos5g": "trace", "norway3g": "trace", "zhuge": "trace"}
COLLECTED = [
    (kind, path)
    for folder, kind in FOLDERS.items()
    for path in sorted(COLLECTION.glob(f"{folder}/*"))
    if path.is_file()
]


def mean_mbps(kind: str, path: Path) -> float:
    """The link's long-run rate."""
    return LINKS.load(kind)(trace=path).mean_bps / 1e6  # type: ignore[call-arg]


@pytest.mark.skipif(not COLLECTED, reason="no collection of traces beside the repository")
def test_the_whole_collection_is_read() -> None:
    """Measured 3G, LTE, 5G and Wi-Fi links; their means as their collectors state them, within 2 %."""
    stated = {
        "ATT-LTE-driving-2016.up": 1.91,
        "TMobile-UMTS-driving.first360s.down": 1.472,
        "5g_trace_88_driving": 268.044,
        "norway_bus_1": 2.917,
        "xu5g_3.pitree-trace": 80.485,
    }
    found = {path.name: mean_mbps(kind, path) for kind, path in COLLECTED}
    assert len(found) >= len(stated)
    for name, mbps in stated.items():
        assert found[name] == pytest.approx(mbps, rel=0.02)


def test_the_shipped_traces() -> None:
    """As their README states them; the measured ones unchanged."""
    assert mean_mbps("trace", SHIPPED / "norway_bus_1") == pytest.approx(2.95, abs=0.005)
    assert mean_mbps("trace", SHIPPED / "norway_tram_12") == pytest.approx(0.94, abs=0.005)
    assert mean_mbps("mahimahi", SHIPPED / "lte_walk.up") == pytest.approx(8.26, abs=0.005)
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")
    for name in ("norway_bus_1", "norway_tram_12"):
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() in readme


def test_the_made_up_trace_is_what_its_script_makes() -> None:
    """Seed inside."""
    done = subprocess.run([sys.executable, SHIPPED / "make_lte_walk.py"], capture_output=True, check=True)
    assert done.stdout.split() == (SHIPPED / "lte_walk.up").read_bytes().split()


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("trace", b"", "the trace is empty; expected lines of `seconds Mbit/s`"),
    "only comments": ("trace", b"# nothing\n\n  \n", "the trace is empty"),
    "heading": ("trace", b"time,mbps\n0,1\n", ":1: 'time,mbps': 'time' is not a finite number; expected `seconds"),
    "words": ("trace", b"0 1\n1 fast\n", ":2: '1 fast': 'fast' is not a finite number"),
    "three columns": ("trace", b"0 1\n1 2 3\n", ":2: '1 2 3': 3 columns (put # before a heading)"),
    "one column": ("trace", b"1\n2\n", ":1: '1': 1 columns"),
    "negative": ("trace", b"0 1\n1 -2\n", ":2: '1 -2': rate -2 is not in 0..1e+06 Mbit/s"),
    "bytes per second": ("trace", b"1,4496890\n2,1062964\n", "is it in bits or bytes per second?"),
    "milliseconds": ("trace", b"0 1\n1700000000000 2\n", "is the clock in milliseconds?"),
    "nan": ("trace", b"0 1\n1 nan\n", "'nan' is not a finite number"),
    "inf": ("trace", b"0 1\n1 inf\n", "'inf' is not a finite number"),
    "huge number": ("trace", b"0 1\n1 1e999\n", "'1e999' is not a finite number"),
    "underscore": ("trace", b"0 1_0\n", "'1_0' is not a finite number"),
    "decreasing": ("trace", b"0 1\n# gap\n2 1\n1 1\n", ":4: time 1 follows 2; times must increase: sort the lines"),
    "repeated time": ("trace", b"0 1\n0 2\n", ":2: time 0 follows 0"),
    "only zeros": ("trace", b"0 0\n1 0\n", "every rate is zero"),
    "binary": ("trace", b"\x89PNG\r\n\x1a\n\0\0", "not a text file"),
    "latin-1": ("trace", b"0 1 # caf\xe9\n", "not a text file"),
    "long line": ("trace", b"x" * 5000, ":1: '" + "x" * 40 + "...': 1 columns"),
    "mahimahi empty": ("mahimahi", b"\n", "the trace is empty; expected lines of whole milliseconds"),
    "mahimahi words": ("mahimahi", b"1\ntwo\n", ":2: 'two': not a whole number"),
    "mahimahi negative": ("mahimahi", b"-1\n", ":1: '-1': not a whole number"),
    "mahimahi fraction": ("mahimahi", b"1.5\n", ":1: '1.5': not a whole number"),
    "mahimahi pairs": ("mahimahi", b"0 4.2\n", ":1: '0 4.2': not a whole number"),
    "mahimahi too long": ("mahimahi", b"12345678901\n", "not a whole number of at most 10 digits"),
    "mahimahi digits": ("mahimahi", "٣\n".encode(), "not a whole number"),
    "mahimahi decreasing": ("mahimahi", b"3\n2\n", ":2: 2 ms follows 3 ms; times must not decrease"),
    "mahimahi all at 0": ("mahimahi", b"0\n0\n", "ends at 0 ms, which leaves no period"),
    "mahimahi binary": ("mahimahi", bytes(100), "not a text file"),
}


def refused(kind: str, path: Path) -> str:
    """The one line that a broken trace earns: its place first."""
    with pytest.raises(TraceError) as caught:
        LINKS.load(kind)(trace=path)  # type: ignore[call-arg]
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path: Path, case: str) -> None:
    """File, line, what is wrong, what was expected."""
    kind, content, said = BROKEN[case]
    path = tmp_path / "trace"
    path.write_bytes(content)
    assert said in refused(kind, path)


@pytest.mark.parametrize("kind", ["trace", "mahimahi"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """Nothing there, a folder, a pipe that nobody writes to, a name that cannot be."""
    assert "no such trace; a relative path starts at" in refused(kind, tmp_path / "missing")
    assert "not a file" in refused(kind, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refused(kind, tmp_path / "pipe")
    assert "cannot be read" in refused(kind, tmp_path / ("x" * 300))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """It takes no space here, being all hole."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(_tracefile.MAX_FILE_BYTES + 1)
    assert "over 64 MiB; cut it" in refused("trace", path)
