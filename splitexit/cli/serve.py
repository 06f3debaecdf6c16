"""serve: the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitexit.cli.serving import Insecure, Json, announce, until_signalled


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(help="Serve a bundle: the edge.")(serve)


def serve(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder with the model (see `splitexit train`).")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Port 0 takes a free one.")] = "127.0.0.1:50051",
    workers: Annotated[int, typer.Option(min=1, help="Requests or batches computed at once, on a thread each.")] = 1,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are shed.")] = 64,
    batch_size: Annotated[
        int, typer.Option(min=1, max=1024, metavar="N", help="Requests of one split computed together, at most.")
    ] = 1,
    batch_wait_ms: Annotated[
        float, typer.Option(min=0, max=60_000, metavar="MS", help="How long the oldest waits for company.")
    ] = 0.0,
    hardware: Annotated[str, typer.Option(help="Machine to stand for (paced); host: as fast as this one is.")] = "host",
    grace_s: Annotated[float, typer.Option(min=0, help="Time for requests under way, when asked to end.")] = 5.0,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """Until SIGTERM or Ctrl-C; then what is under way is finished."""
    from splitexit.live.address import Address, check_exposure
    from splitexit.live.tuning import tune_process

    address = Address.parse(listen, "--listen")
    check_exposure(address, insecure)
    address.listener("--listen").close()  # a port in use is said before a model is loaded
    tune_process()
    from splitexit.live.edge import EdgeRuntime
    from splitexit.live.processes import settle_memory
    from splitexit.live.server import EdgeServer
    from splitexit.scenario.sections import Batching

    batching = Batching(max_size=batch_size, max_wait_ms=batch_wait_ms)
    with until_signalled() as wait:
        runtime = EdgeRuntime.open(bundle, workers=workers, queue=queue, batching=batching, hardware=hardware)
        server = EdgeServer(runtime, address)
        server.start()
        settle_memory()
        announce("edge", server.address, json, bundle=str(bundle), hardware=hardware, workers=workers)
        wait()
        server.stop(grace_s)
