"""The command line: check, schema and init, help, errors in one line, exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from splitexit import __version__, cli
from splitexit.errors import EdgeUnavailableError, InputError, SplitexitError
from splitexit.scenario import load
from tests.synthetic import calibration, recording, spec, write_bundle, write_scenario
from tests.test_floors import ROOT

COMMANDS = ["check", "schema", "init", "simulate", "compare", "train", "record", "calibrate", "serve", "device", "link"]
LIGHT = ("torch", "grpc", "numpy", "pydantic", "pyarrow", "yaml", "simpy", "matplotlib", "pandas")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good bundle."""
    model = spec()
    write_bundle(tmp_path / "bundle", model, recording(model), calibration(model))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def splitexit(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "splitexit", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Runs a command that raises what it is given, and returns the exit code."""

    def run(error: BaseException) -> int:
        app = typer.Typer(cls=cli._Group)

        @app.command()
        def fail() -> None:
            raise error

        app.callback()(lambda: None)
        monkeypatch.setattr(cli, "app", app)
        return cli.run(["fail"])

    return run


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "-h"):
        assert cli.run([flag]) == 0
        out = capsys.readouterr().out
        assert all(re.search(rf"^  {command} ", out, re.MULTILINE) for command in COMMANDS), out


def test_without_arguments_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    assert "Usage: splitexit" in capsys.readouterr().out


@pytest.mark.parametrize("width", ["40", "20", "200"])
def test_help_fits_any_terminal(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for command in ([], *([command] for command in COMMANDS)):
        assert cli.run([*command, "--help"]) == 0
        assert "Usage:" in capsys.readouterr().out


def test_help_needs_none_of_the_libraries() -> None:
    code = (
        "import sys\n"
        "from splitexit.cli import run\n"
        "assert run(['--help']) == 0\n"
        f"print('loaded', sorted(set({LIGHT!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.splitlines()[-1] == "loaded []", done.stdout + done.stderr


def test_check_schema_and_init_need_neither_torch_nor_grpc(folder: Path) -> None:
    write_scenario(folder)
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'grpc', 'safetensors', 'matplotlib')))\n"
        "from splitexit.cli import run\n"
        "assert run(['check', 'scenario.yaml']) == 0\n"
        "assert run(['check', 'bundle']) == 2, 'a made-up bundle has no weights'\n"
        "assert run(['schema']) == 0\n"
        "assert run(['init', 'new.yaml']) == 0\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"splitexit {__version__}\n"
    assert __version__ == version("splitexit")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["chek"], "error: No such command 'chek'. Did you mean 'check'"),
        (["check"], "error: Missing argument"),
        (["check", "--wrong"], "error: No such option"),
        (["init", "a", "b"], "error: Got unexpected extra argument"),
        (["simulate", "x.yaml", "--requests", "many"], "error: Invalid value for '--requests'"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(expected)


Failing = Callable[[BaseException], int]


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (InputError("[red]x[/red]: wrong\ny: wrong too"), 2, ["error: [red]x[/red]: wrong", "error: y: wrong too"]),
        (InputError("a\x1b[31mb"), 2, [r"error: a\x1b[31mb"]),
        (EdgeUnavailableError("nobody there"), 1, ["error: nobody there"]),
        (
            KeyError("x"),
            1,
            ["error: internal error: KeyError: 'x'; please report it, with what SPLITEXIT_DEBUG=1 adds"],
        ),
        (PermissionError(13, "Permission denied", "f.yaml"), 2, ["error: f.yaml: Permission denied"]),
        (
            ModuleNotFoundError("no", name="torch.nn"),
            2,
            ["error: this needs torch.nn, which is not installed; run `pip install 'splitexit[models]'`"],
        ),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (typer.Exit(7), 7, []),
        (SystemError("odd"), 1, ["error: internal error: SystemError: odd; please report it, with what "]),
    ],
)
def test_errors_are_lines_and_codes(
    failing: Failing, error: BaseException, code: int, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == code
    found = capsys.readouterr().err.splitlines()
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True)), found


def test_the_traceback_comes_when_it_is_asked_for(
    failing: Failing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITEXIT_DEBUG", "1")
    assert failing(SplitexitError("here")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m splitexit schema"
    shell = f"({command}; echo code $? >&2) | head -c 10"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout == '{\n  "$sche'
    assert done.stderr in ("code 0\n", "code 1\n"), "it may have written all before the reader left"


def test_interrupting_a_process_ends_in_one_line(folder: Path) -> None:
    os.mkfifo("scenario.yaml")
    command = [sys.executable, "-m", "splitexit", "check", "scenario.yaml"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    writer = os.open("scenario.yaml", os.O_WRONLY)  # opens when the command has opened it to read
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    os.close(writer)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.parametrize(("no_color", "expected"), [("", b"\x1b[31merror:\x1b[0m "), ("1", b"error: ")])
def test_colour_only_on_a_terminal_that_wants_it(no_color: str, expected: bytes) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "NO_COLOR": no_color}
    command = [sys.executable, "-m", "splitexit", "simulate", "nowhere.yaml"]
    subprocess.run(command, stderr=theirs, stdout=subprocess.DEVNULL, env=env, cwd=ROOT, timeout=60, check=False)
    assert os.read(ours, 1000).startswith(expected + b"nowhere.yaml: no such file")
    os.close(ours)
    os.close(theirs)


def test_a_narrow_encoding_does_not_fail(folder: Path) -> None:
    write_scenario(folder, name="größe")
    done = splitexit("check", "scenario.yaml", "--set", "seed=ä", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert r"found '\xe4'; expected a whole number" in done.stdout


def test_check_a_good_scenario(folder: Path) -> None:
    write_scenario(folder)
    done = splitexit("check", "scenario.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("scenario.yaml: fine: 7 policies, ")
    assert done.stdout.count("\n") == 1


def test_check_says_all_on_stdout_and_exits_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenario(folder, uplink__mbps=-5)
    arguments = ["check", "scenario.yaml", "--set", "edge.workers=0", "--set", "policies.offload.name=ofload"]
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line.split(";")[0] for line in printed.out.splitlines()] == [
        "--set edge.workers=0: edge.workers: found 0",
        "--set policies.offload.name=ofload: policies.offload.name: unknown policy 'ofload'",
        "scenario.yaml:14:9: uplink.mbps: found -5",
    ]


def test_check_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenario(folder, uplink__mbps=-5)
    assert cli.run(["check", "scenario.yaml", "--json"]) == 2
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    what = "found -5; expected a number greater than 0; rate in Mbit/s"
    problem = {"line": 14, "column": 9, "where": "uplink.mbps", "what": what, "source": ""}
    assert document == {"file": "scenario.yaml", "ok": False, "summary": "", "problems": [problem]}
    assert cli.run(["check", "scenario.yaml", "--json", "--set", "uplink.mbps=5"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_check_a_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check", "bundle"]) == 2
    assert capsys.readouterr().out.startswith("bundle/model.safetensors: cannot be read: No such file")
    assert cli.run(["check", "bundle", "--set", "seed=1"]) == 2
    assert capsys.readouterr().err == "error: --set: a bundle has no keys to override; give a scenario\n"


def test_check_a_missing_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenario(folder)
    assert cli.run(["check", "scenari.yaml"]) == 2
    assert capsys.readouterr().out == "scenari.yaml: no such file; did you mean 'scenario.yaml'?\n"


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Scenario"


def test_init_writes_a_scenario_that_check_accepts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["init"]) == 0
    assert capsys.readouterr().out == "wrote scenario.yaml; next: splitexit check scenario.yaml\n"
    assert cli.run(["check", "scenario.yaml"]) == 0
    (folder / "sub").mkdir()
    assert cli.run(["init", "sub/mine.yaml", "--bundle", "bundle", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"path": "sub/mine.yaml"}
    assert load("sub/mine.yaml").bundle == folder / "bundle"
    assert load("sub/mine.yaml").name == "mine"


def test_init_overwrites_only_with_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scenario.yaml").write_text("mine")
    assert cli.run(["init"]) == 2
    expected = "error: scenario.yaml exists; choose another name, or overwrite it with --force\n"
    assert capsys.readouterr().err == expected
    assert (folder / "scenario.yaml").read_text() == "mine"
    assert cli.run(["init", "--force"]) == 0
    assert (folder / "scenario.yaml").read_text() != "mine"


def test_init_where_nothing_can_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["init", "nowhere/x.yaml"]) == 2
    assert capsys.readouterr().err == "error: nowhere/x.yaml: cannot be written: No such file or directory\n"
