"""Floor 7: `cfsae evaluate`: a saved model on held-out users, and how well its knobs obey."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from cfsae_fast import evaluation
from cfsae_fast.cli.console import json_option, note, print_json, table
from cfsae_fast.cli.settings import read_saved
from cfsae_fast.cli.train import show_metrics
from cfsae_fast.data import load
from cfsae_fast.recommender import Fitted, SteerableRecommender


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source")
@click.option("-n", "n", default=20, show_default=True, help="Length of the lists judged.")
@click.option("--steering", is_flag=True, help="Judge the knobs too (takes longer).")
@click.option("--min-items", default=50, show_default=True, help="Only concepts this common.")
@json_option
def evaluate(
    model: Path, source: str, n: int, steering: bool, min_items: int, as_json: bool
) -> None:
    """Judge MODEL on the test users of SOURCE, cut as `cfsae train` cut them.

    The settings and the seed beside the model (settings.json) say how; without them, defaults.
    """
    fitted = SteerableRecommender.load(model).fitted
    settings, seed = read_saved(model.resolve().parent / "settings.json")
    dataset = load(source, tags=settings.data.tags)
    cut = evaluation.prepare(
        dataset,
        filters=settings.data.filters(),
        seed=seed,
        min_tag=settings.data.min_tag,
        compat=settings.sae.compat,
    )
    metrics = evaluation.evaluate(fitted, cut.test, train=cut.train.rows(), n=n)
    knobs = judge_knobs(fitted, cut, min_items=min_items, n=n) if steering else []
    if as_json:
        print_json({**metrics, "knobs": [knob._asdict() for knob in knobs]})
        return
    show_metrics(metrics)
    if knobs:
        show_knobs(knobs, n)


def judge_knobs(
    fitted: Fitted, cut: evaluation.Protocol, *, min_items: int, n: int = 20, users: int = 200
) -> list[evaluation.Obedience]:
    """Obedience of every concept with at least `min_items` items, on up to `users` test users;
    concepts that the cut's tags do not hold are left out."""
    tags = cut.dataset.tags
    if tags is None or fitted.concepts is None:
        note("the knobs cannot be judged without tags")
        return []
    rows = cut.test.inputs.rows(np.arange(min(users, cut.test.inputs.n_users)))
    found = []
    names = [concept.name for concept in fitted.concepts if concept.name in set(tags.names)]
    for name in names:
        items = tags.item_mask(name, len(fitted.item_ids))
        if items.sum() >= min_items:
            found.append(evaluation.obedience(fitted, rows, name, items, n=n))
    return found


def show_knobs(knobs: list[evaluation.Obedience], n: int) -> None:
    """One line per concept: its share in the top-n as the knob turns."""
    alphas = [f"{alpha:g}" for alpha in knobs[0].alphas]
    rows = [
        [x.concept, x.n_items, *map(_percent, (*x.shares, x.suppressed))]
        for x in sorted(knobs, key=lambda one: -one.n_items)
    ]
    columns = ["concept", "items", *alphas, "suppressed"]
    table(f"Share of the concept in the top-{n} as its boost rises", columns, rows)
    monotone = np.mean([x.rank_correlation > 0.9 for x in knobs])
    note(f"{monotone:.0%} of {len(knobs)} concepts rise with alpha (Spearman above 0.9)")


def _percent(share: float) -> str:
    return f"{share:.0%}".rjust(4)
