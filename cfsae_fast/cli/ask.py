"""Floor 7: asking a saved model: recommend, steer, explain, concepts, info."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from cfsae_fast import steering
from cfsae_fast.cli.console import json_option, note, out, print_json, shown_id, table
from cfsae_fast.concepts.map import NO_KNOB
from cfsae_fast.ids import Ids
from cfsae_fast.recommender import Recommendations, SteerableRecommender

model_argument = click.argument("model", type=click.Path(path_type=Path))
user_option = click.option("--user", help="A stored user's id.")
items_option = click.option("--items", help="A new user's history: item ids with commas between.")
n_option = click.option("-n", "n", default=10, show_default=True, help="How many items.")
mode_option = click.option(
    "--mode",
    type=click.Choice(["residual", "reconstruct"]),
    default="residual",
    show_default=True,
    help="residual keeps what the SAE cannot say; reconstruct is the paper's way.",
)


def external(text: str, ids: Ids) -> Any:
    """An id as typed, as the kind of id that the model has.

    Raises:
        UnknownIdError: the model's ids are whole numbers and the text is none.
    """
    if ids.is_text:
        return text
    try:
        return int(text)
    except ValueError:
        raise ids.unknown(text) from None


def who(model: SteerableRecommender, user: str | None, items: str | None) -> dict[str, Any]:
    """The arguments users= or histories= for what was typed."""
    if (user is None) == (items is None):
        raise click.UsageError("give --user or --items, one of them")
    if user is not None:
        return {"users": external(user, model.fitted.user_ids)}
    names = [name.strip() for name in (items or "").split(",") if name.strip()]
    return {"histories": [external(name, model.fitted.item_ids) for name in names]}


def listed(text: str | None, ids: Ids) -> list[Any] | None:
    """An allow or deny list as typed, or None."""
    if text is None:
        return None
    return [external(name.strip(), ids) for name in text.split(",") if name.strip()]


def entries(model: SteerableRecommender, found: Recommendations) -> list[dict[str, Any]]:
    """One dict per recommended item, for JSON and tables."""
    fitted = model.fitted
    kept = np.isfinite(found.scores)
    positions = fitted.item_ids.index(found.ids[kept])
    return [
        {"rank": at + 1, "item": item, "title": fitted.title(int(where)), "score": float(score)}
        for at, (item, where, score) in enumerate(
            zip(found.ids[kept].tolist(), positions, found.scores[kept], strict=True)
        )
    ]


def warn_of(model: SteerableRecommender, wish: str | None) -> None:
    """Say of each concept of a wish whose knob finds its items no better than a coin."""
    for turn in steering.per_row(wish, 1)[0]:
        name, goes = getattr(turn, "concept", None), isinstance(turn, steering.Toward)
        if isinstance(name, str):
            found = model.fitted.toward_concept(name) if goes else model.concept_map.get(name)
            if found and found.verdict == NO_KNOB:
                by = "toward " * goes + found.name
                note(f"{by}: {NO_KNOB} (confidence {found.confidence:.2f})")


def show_entries(title: str, rows: list[dict[str, Any]]) -> None:
    columns = [[x["rank"], shown_id(x["item"]), x["title"], x["score"]] for x in rows]
    table(title, ["rank", "item", "title", "score"], columns)


@click.command()
@model_argument
@user_option
@items_option
@n_option
@mode_option
@click.option("--steer", "wish", help='Knobs, as "film noir=0.3, -horror, toward:anime=0.3".')
@click.option("--allow", help="Item ids that alone may be recommended, with commas between.")
@click.option("--deny", help="Item ids that may not be recommended.")
@click.option("--include-seen", is_flag=True, help="Recommend items of the history too.")
@json_option
def recommend(
    model: Path,
    user: str | None,
    items: str | None,
    n: int,
    mode: str,
    wish: str | None,
    allow: str | None,
    deny: str | None,
    include_seen: bool,
    as_json: bool,
) -> None:
    """Top-N items for a stored user or a new history."""
    loaded = SteerableRecommender.load(model)
    found = loaded.recommend(
        **who(loaded, user, items),
        n=n,
        steer=wish,
        mode=mode,
        exclude_seen=not include_seen,
        allow=listed(allow, loaded.fitted.item_ids),
        deny=listed(deny, loaded.fitted.item_ids),
    )
    warn_of(loaded, wish)
    rows = entries(loaded, found)
    if as_json:
        print_json({"user": user, "steer": wish, "mode": mode, "items": rows})
    else:
        show_entries(f"Top {n}" + (f" with {wish}" if wish else ""), rows)


@click.command()
@model_argument
@click.argument("wish")
@user_option
@items_option
@n_option
@mode_option
@json_option
def steer(
    model: Path,
    wish: str,
    user: str | None,
    items: str | None,
    n: int,
    mode: str,
    as_json: bool,
) -> None:
    """Top-N before and after turning knobs, side by side.

    WISH: "comedy=0.3, -horror", "only:anime", "toward:film noir=0.3".
    """
    loaded = SteerableRecommender.load(model)
    asked = who(loaded, user, items)
    before = entries(loaded, loaded.recommend(**asked, n=n))
    after = entries(loaded, loaded.recommend(**asked, n=n, steer=wish, mode=mode))
    warn_of(loaded, wish)
    if as_json:
        print_json({"steer": wish, "mode": mode, "before": before, "after": after})
        return
    ranks = {x["item"]: x["rank"] for x in before}
    rows = []
    for at in range(max(len(before), len(after))):
        old = before[at] if at < len(before) else None
        new = after[at] if at < len(after) else None
        was = ranks.get(new["item"]) if new else None
        moved = "" if new is None else "new" if was is None else f"{was - new['rank']:+d}"
        rows.append([at + 1, _name(old), _name(new), "=" if moved == "+0" else moved])
    table(f"Before and after {wish}", ["rank", "before", "after", "moved"], rows)


def _name(row: dict[str, Any] | None) -> str:
    return "" if row is None else str(row["title"] or row["item"])


@click.command()
@model_argument
@user_option
@items_option
@click.option("--item", required=True, help="The item whose score is to be explained.")
@click.option("--steer", "wish", help="Explain the score under these knobs.")
@mode_option
@click.option("--top", default=8, show_default=True, help="How many shares to show.")
@json_option
def explain(
    model: Path,
    user: str | None,
    items: str | None,
    item: str,
    wish: str | None,
    mode: str,
    top: int,
    as_json: bool,
) -> None:
    """Why an item has its score: shares of latents and of the history that sum to it."""
    loaded = SteerableRecommender.load(model)
    asked = who(loaded, user, items)
    found = loaded.explain(
        asked.get("users"),
        external(item, loaded.fitted.item_ids),
        history=asked.get("histories"),
        steer=wish,
        mode=mode,
    )
    if as_json:
        plain = found._asdict()
        plain["latents"] = [share._asdict() for share in found.latents]
        plain["history"] = found.history and [share._asdict() for share in found.history]
        print_json(plain)
        return
    shares = [[f"#{x.latent}", x.name, x.activation, x.share] for x in found.latents[:top]]
    rest = sum(x.share for x in found.latents[top:])
    shares += [["", f"{len(found.latents) - top} other latents", None, rest]] if rest else []
    shares += [["", "mean and bias of the embedding", None, found.base]]
    shares += [["", "residual (what the SAE cannot say)", None, found.residual]]
    table(
        f"{found.title or found.item}: score {found.score:.4f} =",
        ["latent", "name", "activation", "share"],
        shares,
    )
    if found.history:
        rows = [[shown_id(x.item), x.title, x.share] for x in found.history[:top]]
        table("The same score, unsteered, by the history", ["item", "title", "share"], rows)


@click.command()
@model_argument
@click.option("--search", help="Only concepts that match this text.")
@click.option("--limit", default=40, show_default=True, help="How many at the most.")
@json_option
def concepts(model: Path, search: str | None, limit: int, as_json: bool) -> None:
    """The concepts one can steer with; "toward": that word's confidence, whose map is another."""
    loaded = SteerableRecommender.load(model)
    found, rows = loaded.concepts(search), []
    for one in found[:limit]:
        goes = loaded.fitted.toward_concept(one.name)
        rows.append({
            **one._asdict(),
            "verdict": one.verdict,
            "confidence": _or_none(one.confidence),
            "toward": goes and goes.verdict,
            "toward_confidence": goes and _or_none(goes.confidence),
        })  # fmt: skip
    if as_json:
        print_json(rows)
        return
    shown = [
        [x["name"], x["n_items"], x["verdict"], x["confidence"],
         x["toward"] if x["toward_confidence"] is None else x["toward_confidence"],
         ", ".join(f"#{latent}" for latent in x["latents"])]
        for x in rows
    ]  # fmt: skip
    columns = ["concept", "items", "knob", "confidence", "toward", "latents"]
    table(f"{len(found)} concepts", columns, shown)


def _or_none(confidence: float) -> float | None:
    return confidence if np.isfinite(confidence) else None


@click.command()
@model_argument
@json_option
def info(model: Path, as_json: bool) -> None:
    """What a saved model is: sizes, settings, and the metrics of its training."""
    fitted = SteerableRecommender.load(model).fitted
    summary = {
        "model": fitted.cfae.kind,
        "users": len(fitted.user_ids),
        "items": len(fitted.item_ids),
        "interactions": len(fitted.histories.items),
        "d": fitted.sae.d,
        "sae": fitted.sae.kind,
        "latents": fitted.sae.n_latents,
        "k": fitted.sae.k,
        "concepts": 0 if fitted.concepts is None else len(fitted.concepts),
        "bytes": sum(file.stat().st_size for file in model.rglob("*") if file.is_file()),
    }
    if as_json:
        print_json({**summary, "report": fitted.report})
        return
    table(str(model), ["what", "value"], [[name, str(value)] for name, value in summary.items()])
    for name, section in fitted.report.items():
        out.print(f"[bold]{name}[/bold]: {section}", soft_wrap=True)
