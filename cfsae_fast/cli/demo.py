"""Floor 7: `cfsae demo`: from real ratings to a knob that was turned, in one command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from cfsae_fast import evaluation, io
from cfsae_fast.cli.console import note, out, shown_id, table
from cfsae_fast.cli.judge import judge_knobs, show_knobs
from cfsae_fast.cli.settings import DataSettings, Settings
from cfsae_fast.cli.train import show_metrics, train_on
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.data import default_dataset, load
from cfsae_fast.recommender import SteerableRecommender

BOOST = 0.3
LISTED = 10  # items shown
COMMON = 50  # items a concept must have to be shown off
HISTORY = (15, 60)  # sizes of history that fit a screen and still say something

SAE_EPOCHS = 12  # half of the default: the demo is to end within minutes


def settings(seed: int) -> Settings:
    """What the demo trains."""
    return Settings(
        data=DataSettings(min_user=5, min_item=1, min_tag=20),
        cfae=CFAEConfig(d=256),
        sae=SAEConfig(k=32, n_latents=2048),
        sae_training=TrainConfig.for_sae(epochs=SAE_EPOCHS, seed=seed),
    )


@click.command()
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Where everything is left.",
)
@click.option("--data", "source", help="A path, a name, or generated:...; default: see README.")
@click.option("--seed", default=42, show_default=True)
def demo(folder: Path, source: str | None, seed: int) -> None:
    """Train on real ratings, name the latents, and turn a knob for one user."""
    started = time.perf_counter()
    dataset, said = (
        default_dataset(tags="both") if source is None else (load(source, tags="both"), source)
    )
    out.print(f"[bold]Data[/bold]: {said}", soft_wrap=True)
    note(dataset.licence.splitlines()[0] if dataset.licence else "no licence is stated")
    model, cut, metrics = train_on(dataset, settings(seed), folder, seed=seed)
    trained = time.perf_counter()
    knobs = judge_knobs(model.fitted, cut, min_items=COMMON)
    shown = show_user(model, cut, knobs) if knobs else {}
    if knobs:
        show_knobs(knobs, metrics["n"])
    show_metrics(metrics)
    seconds = {"train": trained - started, "all": time.perf_counter() - started}
    content = {
        **metrics,
        "data": said,
        "seconds": seconds,
        "knobs": [knob._asdict() for knob in knobs],
        "shown": shown,
    }
    io.write_json(folder / "metrics.json", _finite(content))
    out.print(
        f"Trained in {seconds['train']:.0f} s, {seconds['all']:.0f} s in all. The model lies in "
        f"{folder / 'model'}, the metrics in {folder / 'metrics.json'}. Now try:\n"
        f"  cfsae concepts {folder / 'model'}\n"
        f"  cfsae steer {folder / 'model'} --user {shown.get('user', 'ID')} "
        f'"{shown.get("boost", "CONCEPT")}={BOOST}"',
        soft_wrap=True,
    )


def show_user(
    model: SteerableRecommender, cut: evaluation.Protocol, knobs: list[evaluation.Obedience]
) -> dict[str, Any]:
    """One test user's history, and the top-10 before and after a boost and a suppress."""
    user, up, down = choose(model, cut, knobs)
    asked: dict[str, Any] = {"users": user, "n": LISTED}
    history = cut.dataset.interactions.row(int(model.fitted.user_ids.index([user])[0]))
    table(
        f"User {user} took {len(history)} items, some of them",
        ["item", "title", "concepts"],
        [
            [shown_id(model.fitted.item_ids[int(at)]), cut.dataset.title(at), _tags_of(cut, at)]
            for at in history[:: max(len(history) // LISTED, 1)][:LISTED]
        ],
    )
    shown: dict[str, Any] = {"user": user, "boost": up, "suppress": down}
    turns = [("before", up, None), ("boost", up, {up: BOOST}), ("suppress", down, {down: -1.0})]
    for name, concept, steer in turns:
        found = model.recommend(**asked, steer=steer)
        positions = model.fitted.item_ids.index(found.ids[np.isfinite(found.scores)])
        carried = {c: _mask(cut, c)[positions] for c in (up, down)}
        shares = {c: float(mask.mean()) for c, mask in carried.items()}
        said = ", ".join(f"{share:.0%} {c}" for c, share in shares.items())
        title = "Before" if steer is None else f"After {name} of {concept!r}"
        rows = [
            [rank + 1, cut.dataset.title(at), _tags_of(cut, at), float(found.scores[rank])]
            for rank, at in enumerate(positions)
        ]
        table(f"{title}: {said}", ["rank", "title", "concepts", "score"], rows)
        shown[f"{name}_items"] = found.ids.tolist()
        shown[f"{name}_shares"] = shares
    return shown


def choose(
    model: SteerableRecommender, cut: evaluation.Protocol, knobs: list[evaluation.Obedience]
) -> tuple[Any, str, str]:
    """A test user of middling history, the boost that moves this user most, and the suppress."""
    fitted = model.fitted
    tests = cut.split.test
    sizes = np.diff(fitted.histories.offsets)[tests]
    fit = np.flatnonzero((sizes >= HISTORY[0]) & (sizes <= HISTORY[1]))
    user = fitted.user_ids[int(tests[fit[0] if len(fit) else np.argmax(sizes)])]

    def share(concept: str, steer: dict[str, float] | None) -> float:
        ids = model.recommend(user, n=LISTED, steer=steer).ids
        return _mask(cut, concept)[fitted.item_ids.index(ids)].mean()

    moves = {}
    for concept in [knob.concept for knob in knobs]:
        before = share(concept, None)
        boosted, left = (share(concept, {concept: alpha}) for alpha in (BOOST, -1.0))
        moves[concept] = (boosted - before, before - left)
    up = max(moves, key=lambda one: moves[one][0])
    down = max(moves, key=lambda one: moves[one][1] - (one == up))
    return user, up, down


def _mask(cut: evaluation.Protocol, concept: str) -> np.ndarray:
    assert cut.dataset.tags is not None
    return cut.dataset.tags.item_mask(concept, cut.dataset.interactions.n_items)


def _tags_of(cut: evaluation.Protocol, position: int, limit: int = 4) -> str:
    assert cut.dataset.tags is not None
    items, tags = cut.dataset.tags.pairs()
    names = cut.dataset.tags.names
    return ", ".join(names[tag] for tag in tags[items == position][:limit])


def _finite(content: Any) -> Any:
    """NaN as null: JSON has no NaN."""
    if isinstance(content, dict):
        return {name: _finite(one) for name, one in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(one) for one in content]
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content.item() if isinstance(content, np.generic) else content
