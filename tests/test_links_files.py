"""Trace files: every file at hand is read, every broken one refused in one line."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from splitexit.errors import TraceError
from splitexit.links import LINKS, _tracefile
from splitexit.links.trace import Trace

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "scenarios" / "traces"
COLLECTION = ROOT.parent / "shared" / "traces"
FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mahimahi": ("mahimahi", {}),
    "lumos5g": ("trace", {}),
    "norway3g": ("trace", {}),
    "zhuge": ("trace", {}),
    "ucc5g": ("trace", {"column": "DL_bitrate"}),
    "multipath": ("trace", {"unit": "bytes/s"}),
}
"""Folder of the collection -> link, and what its files cannot say."""


def mean_mbps(kind: str, path: Path, **parameters: Any) -> float:
    """The link's long-run rate."""
    return LINKS.load(kind)(trace=path, **parameters).mean_bps / 1e6


@pytest.mark.skipif(not COLLECTION.is_dir(), reason="no collection of traces beside the repository")
def test_the_whole_collection_is_read() -> None:
    """Measured 3G, LTE, 5G and Wi-Fi links; their means as their collectors state them, within 2.5 %."""
    with (COLLECTION / "traces.csv").open(newline="") as file:
        stated = {row["file"]: row["mean_mbps"] for row in csv.DictReader(file)}
    traces = {name: FOLDERS[name.split("/")[0]] for name in stated if name.split("/")[0] in FOLDERS}
    assert len(traces) == sum(1 for folder in FOLDERS for path in (COLLECTION / folder).iterdir() if path.is_file())
    for name, (kind, parameters) in traces.items():
        assert mean_mbps(kind, COLLECTION / name, **parameters) == pytest.approx(float(stated[name]), rel=0.025), name


LOG = """Timestamp,CellID,DL_bitrate,UL_bitrate
2020.01.16_12.10.03,11,8000,16
2020.01.16_12.10.03,11,24000,16
2020.01.16_12.10.04,11,0,8
2020.01.16_12.10.06,11,4000,0
"""


def test_a_logged_csv_by_hand(tmp_path: Path) -> None:
    """kbit/s by name; a doubled second is averaged, a missing one filled, an idle one is zero.

    2, 0 and 0.5 MB/s over 1, 2 and 1.5 s (the median step).
    """
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    link = Trace(trace=path, column="DL_bitrate")
    for size_bytes, finish_s in ((2_000_000, 1.0), (2_000_001, 3.000002), (2_500_000, 4.0), (4_500_000, 5.375)):
        assert link.finish_s(0.0, size_bytes) == pytest.approx(finish_s, abs=1e-9)
    assert link.mean_bps == pytest.approx(2_750_000 * 8 / 4.5)
    assert Trace(trace=path, column="UL_bitrate").mean_bps == pytest.approx(8 * 4000 / 4.5)
    assert Trace(trace=path, column="UL_bitrate", unit="Mbit/s").mean_bps == pytest.approx(8 * 4_000_000 / 4.5)


@pytest.mark.parametrize(("unit", "rate"), [("Mbit/s", 8), ("kbit/s", 8000), ("bit/s", 8e6), ("bytes/s", 1_000_000)])
def test_units(tmp_path: Path, unit: Any, rate: float) -> None:
    """The same rate four times, with and without a heading."""
    path = tmp_path / "trace"
    for heading, column in (("", None), ("time_s,what ever\n", "what ever")):
        path.write_text(f"{heading}1,{rate}\n2,{rate}\n")
        assert Trace(trace=path, unit=unit, column=column).finish_s(0.5, 1_000_000) == pytest.approx(1.5)


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
    "heading": (
        "trace",
        b"time,mbps,x\n0,1,2\n",
        ":1: 'time,mbps,x': a heading; say with `column` which one is the rate: mbps, x",
    ),
    "words": ("trace", b"0 1\n1 fast\n", ":2: '1 fast': 'fast' is not a finite number"),
    "three columns": ("trace", b"0 1\n1 2 3\n", ":2: '1 2 3': 3 columns (put # before a comment)"),
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


def refused(kind: str, path: Path, **parameters: Any) -> str:
    """The one line that a broken trace earns: its place first."""
    with pytest.raises(TraceError) as caught:
        LINKS.load(kind)(trace=path, **parameters)
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


BROKEN_COLUMNS: dict[str, tuple[dict[str, str], str, str]] = {
    "no column": ({}, LOG, "a heading; say with `column` which one is the rate: DL_bitrate, UL_bitrate;"),
    "no such column": ({"column": "DL_bitrat"}, LOG, ":1: 'Timestamp,CellID,DL_bitrate,UL_bitrate': no column"),
    "a near one": ({"column": "DL_bitrat"}, LOG, "did you mean 'DL_bitrate'"),
    "the time": ({"column": "Timestamp"}, LOG, "no column 'Timestamp'"),
    "no unit": ({"column": "CellID"}, LOG, "the unit of 'CellID' is not known; say with `unit`: Mbit/s, kbit/s, "),
    "no heading": ({"column": "mbps"}, "0 1\n", ":1: '0 1': no heading, so there is no column 'mbps'"),
    "short": ({"column": "UL_bitrate"}, LOG + "2020.01.16_12.10.07,11\n", ":6: '2020.01.16_12.10.07,11': 2 columns"),
    "dash": ({"column": "DL_bitrate"}, LOG + "2020.01.16_12.10.07,1,-,0\n", "'-' is not a finite number"),
    "date": ({"column": "DL_bitrate"}, LOG + '"01/16/2021, 4:04 PM",1,1,1\n', "nor a time like 2020.02.14_13.21.26"),
    "back": ({"column": "DL_bitrate"}, LOG + "2020.01.16_12.10.05,1,1,1\n", ":6: time "),
    "nothing": ({"column": "DL_bitrate"}, LOG[: LOG.index("\n") + 1], "the trace is empty"),
    "too fast": ({"unit": "bytes/s"}, "0 1\n1 1e12\n", ":2: '1 1e12': rate 8e+06 is not in 0..1e+06 Mbit/s;"),
}


@pytest.mark.parametrize("case", BROKEN_COLUMNS)
def test_broken_columns(tmp_path: Path, case: str) -> None:
    """The heading, or what stands below it."""
    parameters, content, said = BROKEN_COLUMNS[case]
    path = tmp_path / "trace"
    path.write_text(content)
    assert said in refused("trace", path, **parameters)


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
