"""The command line: one application, its errors in one line each, its exit codes.

0 done; 1 something failed; 2 something that was given is wrong; 130 interrupted. With SPLITEXIT_DEBUG=1 the
traceback comes too. Every file of this package registers its commands; what they need is imported when they run.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from splitexit import __version__
from splitexit.cli import (
    bench,
    calibrate,
    capacity,
    curve,
    demo,
    device,
    link,
    live,
    models,
    new,
    recommend,
    replay,
    scenario,
    serve,
    simulate,
    sweep,
    train_policy,
    tune,
    validate,
)
from splitexit.errors import INTERRUPTED, SplitexitError, one_line

FAILED, WRONG = 1, 2

EXTRAS = {
    "torch": "models",
    "safetensors": "models",
    "grpc": "live",
    "grpc_health": "live",
    "grpc_reflection": "live",
    "google": "live",
    "matplotlib": "report",
    "joblib": "sweep",
    "numba": "fast",
    "gymnasium": "rl",
}
"""Module that may be missing -> the extra that brings it."""


class _Group(TyperGroup):
    """Ctrl-C ends in one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


# Plain help: markup would swallow square brackets, and needs rich, which takes a while to import.
app = typer.Typer(
    cls=_Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"splitexit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Decide where a neural network should run: on the device, on the edge, or split between them."""


for part in (
    demo,
    simulate,
    validate,
    replay,
    recommend,
    capacity,
    sweep,
    live,
    serve,
    device,
    link,
    scenario,
    new,
    models,
    train_policy,
    bench,
    calibrate,
    curve,
    tune,
):
    part.register(app)


def main() -> None:
    """Runs the command line of this process and exits."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code; errors are printed on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a narrow encoding is no reason to fail
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="splitexit", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left; so that the interpreter does not try to flush once more:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    if os.environ.get("SPLITEXIT_DEBUG"):
        traceback.print_exc()
    text, code = _explain(error)
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    for line in text.splitlines():
        print(f"{red}error:{plain} {one_line(line)}", file=sys.stderr)
    return code


def _explain(error: Exception) -> tuple[str, int]:
    """What to print, and the exit code."""
    if isinstance(error, SplitexitError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # a usage error of typer's, whose class moved between its versions
        return f"{error.format_message()} (see `splitexit --help`)", WRONG
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get(str(error.name).partition(".")[0])):
        return f"this needs {error.name}, which is not installed; run `pip install 'splitexit[{extra}]'`", WRONG
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", WRONG
    what = " ".join(str(error).split())
    return f"internal error: {type(error).__name__}: {what}; please report it, with what SPLITEXIT_DEBUG=1 adds", FAILED
