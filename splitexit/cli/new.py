"""new: files to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitexit.cli.simulate import Json


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    new = typer.Typer(no_args_is_help=True, help="Write a policy of your own to start from.")
    new.command()(policy)
    new.callback()(_several)
    app.add_typer(new, name="new")


def _several() -> None:
    """Keeps `policy` a command of its own, though it is the only one."""


def policy(
    name: Annotated[str, typer.Argument(help="Of its module, e.g. my_policy; the class is then MyPolicy.")],
    folder: Annotated[Path, typer.Option("--dir", help="Where to write it; made if it is not there.")] = Path(),
    bundle: Annotated[
        Path | None,
        typer.Option(help="Of its scenario [default: scenarios/data/resnet32-cifar10].", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Write a policy that works, its test with the contract of all policies, and a scenario that runs it."""
    import os
    from json import dumps

    from splitexit.contract.template import policy_files, require_free
    from splitexit.errors import UsageError

    place = bundle or Path("scenarios") / "data" / "resnet32-cifar10"
    files = policy_files(name, Path(os.path.relpath(place, folder)).as_posix())
    require_free(name, folder)
    there = [str(folder / file) for file in files if (folder / file).exists()]
    if there:
        raise UsageError(f"{', '.join(there)}: there already; choose another name or --dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            with (folder / file).open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written: {error.strerror}") from error
    paths = [str(folder / file) for file in files]
    if json:
        print(dumps({"paths": paths}))
        return
    print(f"wrote {', '.join(paths)}")
    print(f"next: pytest {paths[1]}; splitexit compare {paths[2]}")
