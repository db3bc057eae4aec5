"""Floor 7: `cfsae experiment`: the paper's experiments, with a page of results."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import click
import yaml

from cfsae_fast.cli.console import err, note, out
from cfsae_fast.evaluation import experiments as rooms
from cfsae_fast.evaluation import report


@click.command()
@click.argument("which", type=click.Choice([*sorted(rooms.EXPERIMENTS), "all"]))
@click.option("--grid", default="shared", show_default=True, help="A name, or a YAML file.")
@click.option("--out", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--set", "overrides", multiple=True, help="key=value of the grid, such as k=[8,16].")
@click.option("--workers", default=1, show_default=True, help="Processes that share the cells.")
@click.option("--no-report", is_flag=True, help="Numbers only (no matplotlib needed).")
def experiment(
    which: str,
    grid: str,
    folder: Path,
    overrides: tuple[str, ...],
    workers: int,
    no_report: bool,
) -> None:
    """Train and judge a grid of models; a run that was killed goes on where it stopped.

    users is a picture of users before and after a boost (extra "umap"), and no part of all.

    Grids by name: ml-25m-elsa, ml-25m-multvae, msd-elsa and msd-multvae as published, each also
    with -basic (L1 in place of TopK) and -labelled (the models that were named and steered); shared
    (the data sets of CFSAE_DATA_DIR), planted (made-up catalogues), quick. Leaves results.json,
    results.parquet and report.html in --out.
    """
    chosen = rooms.ALL if which == "all" else (which,)
    if not no_report:
        report.check()  # before hours of training, not after
    options = {"workers": workers, "say": note, "progress": err.is_terminal}
    jobs = rooms.run(_grid(grid, overrides), chosen, folder, **options)
    if no_report:
        out.print(f"{len(jobs)} results in {folder / 'results.json'}")
        return
    command = shlex.join(["cfsae", *sys.argv[1:]])
    out.print(f"{len(jobs)} results in {report.write(jobs, folder, command=command)}")


def _grid(name: str, overrides: tuple[str, ...]) -> rooms.Grid:
    if name in rooms.NAMED:
        values = asdict(rooms.NAMED[name])
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    else:
        path = Path(name)
        if not path.exists():
            raise ValueError(f"--grid must be a file or one of {sorted(rooms.NAMED)}, got {name!r}")
        try:
            values = yaml.safe_load(path.read_text()) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"--grid must be YAML, got {error} in {name}") from error
        if not isinstance(values, dict):
            raise ValueError(f"--grid must hold keys and values, got {values!r} in {name}")
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be key=value, got {text!r}")
        values[key.strip()] = yaml.safe_load(value)
    return rooms.grid_from(values)
