"""Floor 7: `cfsae fold`: tables for serving, written into a saved model's directory."""

from __future__ import annotations

from pathlib import Path

import click

from cfsae_fast.cli.ask import model_argument
from cfsae_fast.cli.console import json_option, out, print_json
from cfsae_fast.recommender import SteerableRecommender
from cfsae_fast.recommender.core import FOLD_LIMIT
from cfsae_fast.recommender.fitted import save_folded


@click.command()
@model_argument
@click.option(
    "--limit-gb",
    default=FOLD_LIMIT / 2**30,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Refuse to write more than this many GiB.",
)
@json_option
def fold(model: Path, limit_gb: float, as_json: bool) -> None:
    """Multiply out a model's linear ends: the same answers, sooner."""
    loaded = SteerableRecommender.load(model).fold(int(limit_gb * 2**30))
    tables = loaded.fitted.folded
    path = save_folded(tables, model)
    sides = {"encode": tables.encode_side, "decode": tables.decode_side, "layer": tables.layer}
    folded = [name for name, side in sides.items() if side is not None]
    if as_json:
        print_json({"path": str(path), "bytes": tables.nbytes, "folded": folded})
    else:
        out.print(f"{path}  {tables.nbytes:,} bytes ({' and '.join(folded)})")
