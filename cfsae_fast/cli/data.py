"""Floor 7: `cfsae data`: fetch, look at, and make up data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from cfsae_fast.cli.console import err, json_option, note, out, print_json, table
from cfsae_fast.data import SOURCES, Dataset, cache_directory, load
from cfsae_fast.data import fetch as download
from cfsae_fast.data import generate as make
from cfsae_fast.data.writing import write_parquet


@click.group()
def data() -> None:
    """Fetch, look at, and make up data sets."""


def describe(dataset: Dataset) -> dict[str, Any]:
    """Sizes of a data set, ready for JSON."""
    inter = dataset.interactions
    per_user = inter.counts_per_user()
    return {
        "name": dataset.name,
        "users": inter.n_users,
        "items": inter.n_items,
        "interactions": inter.nnz,
        "density": inter.nnz / max(inter.n_users * inter.n_items, 1),
        "median per user": float(np.median(per_user)) if len(per_user) else 0.0,
        "timestamps": inter.timestamps is not None,
        "titles": dataset.titles is not None,
        "tags": 0 if dataset.tags is None else dataset.tags.n_tags,
        "tag assignments": 0 if dataset.tags is None else dataset.tags.n_assignments,
    }


@data.command()
@click.argument("source")
@json_option
def info(source: str, as_json: bool) -> None:
    """Sizes and licence of SOURCE: a path, a name, or "generated:users=1000,items=500"."""
    dataset = load(source)
    found = describe(dataset)
    if as_json:
        print_json({**found, "licence": dataset.licence})
        return
    table(dataset.name, ["what", "value"], [[name, _text(value)] for name, value in found.items()])
    if dataset.licence:
        out.print(f"Licence: {dataset.licence}")


@data.command()
@click.argument("name", type=click.Choice(sorted(SOURCES)))
@click.option("--to", type=click.Path(path_type=Path), help="Folder; default: the cache.")
@click.option("--base-url", help="Fetch from here instead of the data set's home.")
def fetch(name: str, to: Path | None, base_url: str | None) -> None:
    """Download NAME: resumed where it stopped, verified, unpacked; says which licence applies."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        got = download(name, to or cache_directory(), progress=show, base_url=base_url)
    out.print(f"{name} lies in {got.path}")
    note(f"checked: {got.verified}")
    note(got.licence)


@data.command()
@click.option("--users", default=1000, show_default=True)
@click.option("--items", default=500, show_default=True)
@click.option("--concepts", default=12, show_default=True)
@click.option("--seed", default=42, show_default=True)
@click.option("--out", "target", type=click.Path(path_type=Path), required=True)
def generate(users: int, items: int, concepts: int, seed: int, target: Path) -> None:
    """Write a made-up catalogue with planted concepts as a folder of Parquet files."""
    dataset = make(users=users, items=items, concepts=concepts, seed=seed)
    write_parquet(dataset, target)
    out.print(f"{dataset.interactions!r} lies in {target}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )
