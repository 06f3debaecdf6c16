"""check, schema and init: write a scenario and find out what is wrong with it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitexit.errors import UsageError

if TYPE_CHECKING:
    from splitexit.check import Verdict

WRONG = 2


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command()(check)
    app.command()(schema)
    app.command()(init)


def check(
    target: Annotated[Path, typer.Argument(metavar="SCENARIO|BUNDLE", help="Scenario YAML, or a bundle's folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. uplink.mbps=5; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say everything that is wrong with a scenario or a bundle; exit code 2 if anything is."""
    from splitexit.check import check as run

    if overrides and target.is_dir():
        raise UsageError("--set: a bundle has no keys to override; give a scenario")
    verdict = run(target, overrides or ())
    print(_document(verdict) if as_json else "\n".join(verdict.lines))
    if verdict.problems:
        raise typer.Exit(WRONG)


def _document(verdict: Verdict) -> str:
    content = {
        "file": verdict.file,
        "ok": not verdict.problems,
        "summary": verdict.summary,
        "problems": [asdict(problem) for problem in sorted(verdict.problems)],
    }
    return json.dumps(content, indent=2)


def schema(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print tables of all keys for people.")] = False,
) -> None:
    """Print the JSON schema of a scenario, for editors; or all its keys in tables."""
    if as_markdown:
        from splitexit.scenario.keys import markdown

        print(markdown(), end="")
        return
    from splitexit.scenario import json_schema

    print(json.dumps(json_schema(), indent=2))


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("scenario.yaml"),
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle that the scenario is to run.")] = Path("bundle"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a commented scenario to start from."""
    from splitexit.scenario.template import template

    relative = Path(os.path.relpath(bundle, path.parent)).as_posix()
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(template(path.stem[:80], relative))
    except FileExistsError:
        raise UsageError(f"{path} exists; choose another name, or overwrite it with --force") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    print(json.dumps({"path": str(path)}) if as_json else f"wrote {path}; next: splitexit check {path}")
