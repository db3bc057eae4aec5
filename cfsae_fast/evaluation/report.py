"""Floor 6: a self-contained HTML page of an experiment: tables, curves, latent cards, commands.

Station: after everything. Pictures are inline SVG by matplotlib (extra "report"); the page asks
nothing of a network. Each picture is also written as PNG and its numbers as CSV, for papers.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from cfsae_fast._version import __version__
from cfsae_fast.errors import require_extra
from cfsae_fast.evaluation.experiments import seeds
from cfsae_fast.evaluation.experiments.grid import flat
from cfsae_fast.evaluation.experiments.steering import OURS

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
h1,h2,h3{line-height:1.2} table{border-collapse:collapse;margin:1em 0;font-size:14px}
td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right}
td{white-space:nowrap} td:first-child,th:first-child{text-align:left}
td:first-child{white-space:normal} pre{background:#f4f4f4;padding:.7em;overflow:auto}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(21em,1fr));gap:1em}
.card{border:1px solid #ccc;border-radius:6px;padding:.8em;font-size:13px}
.card h3{margin:0} .weak{color:#a60} .no{color:#a00} .reliable{color:#060}
.lists{display:grid;grid-template-columns:1fr 1fr;gap:.8em} ol{padding-left:1.4em;margin:.3em 0}
.new{background:#e6f3e6} svg{max-width:100%;height:auto}
"""
SIZE = (9, 4)  # of a picture, in inches
_WAYS = {"reconstruct": "-o", "refined_5": "--s", "pursued": ":^"}
_FIELDS = {"data": "{}", "model": "{}", "kind": "{}", "d": "d={}", "n_latents": "L={}", "k": "k={}",
           "loss": "{}", "l1": "l1={:g}", "compat": "{}", "seed": "seed={}"}  # fmt: skip
_FEW = 4  # settings beyond which a picture shows the plain code alone
_HEADLINES = {
    "reconstruction": (*(f"{way}.kept" for way in _WAYS), "sae.dead_share_train"),
    "interpretability": ("detection.reading_auc_median", "detection.knob_auc_median",
                         "detection.ece", "intervention.share_over_random"),
    "steering": tuple(f"{wishes}.ways.{OURS}.{number}" for wishes in ("paper", "history", "unseen")
                      for number in ("hypervolume.value", "hypervolume_over_paper.value")),
}  # fmt: skip


def check() -> None:
    """Raises: MissingExtraError: matplotlib is not installed (extra "report")."""
    require_extra("matplotlib", extra="report", purpose="writing a report")


def write(jobs: list[dict[str, Any]], folder: Path, *, command: str) -> Path:
    """report.html in `folder`, and figures/*.png and *.csv beside it; its path.

    Raises:
        MissingExtraError: matplotlib is not installed (extra "report").
    """
    check()
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    rows = [row for job in jobs for row in flat(job)]
    _csv(folder / "results.csv", rows)
    parts = [f"<h1>cfsae experiment</h1><p>Made by cfsae_fast {escape(__version__)} with</p>",
             f"<pre>{escape(command)}</pre>"]  # fmt: skip
    parts += _over_seeds(rows)
    parts += _reconstruction(jobs, figures)
    parts += _steering(jobs, figures)
    parts += _interpretability(jobs)
    parts += _users(jobs, figures)
    path = folder / "report.html"
    body = "\n".join(parts)
    path.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>cfsae experiment</title>"
        f"<style>{_STYLE}</style><body>{body}</body></html>\n",
        encoding="utf-8",
    )
    return path


def _over_seeds(rows: list[dict[str, Any]]) -> Iterator[str]:
    chosen = [row for row in rows if row["metric"] in _HEADLINES.get(row["experiment"], ())]
    means, gaps = seeds.over_seeds(chosen), seeds.differences(chosen)
    if means:
        yield "<h2>Over seeds: means, with 95 % of bootstrap draws of seeds</h2>"
        head = ["model", "number", "mean", "95 % of seeds", "seeds"]
        yield _table(head, [
            [_text(one), one["metric"], _number(one["mean"]), _between(one), str(one["seeds"])]
            for one in means
        ])  # fmt: skip
    if gaps:
        yield "<h3>Paired by seed: what one other setting changes, p by sign flips</h3>"
        head = ["model", "number", "setting", "change", "95 % of seeds", "p"]
        yield _table(head, [
            [_text(one), one["metric"], f"{one['setting']}: {one['from']} to {one['to']}",
             _number(one["difference"]), _between(one), _number(one["p"])]
            for one in gaps
        ])  # fmt: skip


def _between(one: dict[str, Any]) -> str:
    return f"{_number(one['low'])} to {_number(one['high'])}"


def _reconstruction(jobs: list[dict[str, Any]], figures: Path) -> Iterator[str]:
    found = [(job, job["results"]["reconstruction"]) for job in jobs if _has(job, "reconstruction")]
    if not found:
        return
    yield "<h2>Reconstruction: what the code alone keeps of nDCG@20</h2>"
    head = ["model", "base", "kept", "95 % of users", "refined", "pursued", "cosine", "L0",
            "dead, train"]  # fmt: skip
    rows = []
    for job, one in found:
        plain, sae = one["reconstruct"], one["sae"]
        rows.append([
            _name(job), _number(one["base"]["ndcg"]["mean"]), _percent(plain["kept"]),
            f"{_percent(plain['kept_low'])} to {_percent(plain['kept_high'])}",
            _percent(one["refined_5"]["kept"]), _percent(one["pursued"]["kept"]),
            _number(sae["cosine"]), _number(sae["l0"], 1), _percent(sae["dead_share_train"]),
        ])  # fmt: skip
    yield _table(head, rows)
    yield _figure(lambda axes: _kept(axes, found), figures / "kept")
    _csv(figures / "kept.csv", [
        {**_cell(job), "way": way, "kept": one[way]["kept"], "low": one[way]["kept_low"],
         "high": one[way]["kept_high"]}
        for job, one in found for way in _WAYS
    ])  # fmt: skip


def _kept(axes: Any, found: list) -> None:
    """What is kept over the number of latents, or over the weight of L1 where that is varied; a
    line for each of all other settings, means over seeds."""
    cells = [_cell(job) for job, _ in found]
    several = {name for name in _FIELDS if len({one.get(name) for one in cells}) > 1}
    axis = "l1" if "l1" in several and "k" not in several else "k"
    lines: dict[tuple[str, str], dict[float, list[float]]] = {}
    for cell, (_, one) in zip(cells, found, strict=True):
        name = _text({key: cell.get(key) for key in several - {axis, "seed"}})
        for way in _WAYS:
            points = lines.setdefault((name, way), {})
            points.setdefault(cell[axis], []).append(one[way]["kept"])
    few = len({name for name, _ in lines}) <= _FEW
    for (name, way), points in sorted(lines.items()):
        if few or way == "reconstruct":
            at = sorted(points)
            heights = [np.mean(np.array(points[x], dtype=float)) for x in at]
            axes.plot(at, heights, _WAYS[way], label=f"{name} {way}".strip(), markersize=4)
    axes.set_xticks(sorted({x for points in lines.values() for x in points}))
    axes.set_xlabel("k, latents per user" if axis == "k" else "weight of L1")
    axes.set_ylabel("share of nDCG@20 kept")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _steering(jobs: list[dict[str, Any]], figures: Path) -> Iterator[str]:
    found = [job for job in jobs if _has(job, "steering")]
    if found:
        yield "<h2>Steering: what it gives and what it costs</h2>"
    for at, job in enumerate(found):
        for protocol, one in job["results"]["steering"].items():
            if "skipped" in one:
                yield f"<p>Protocol {protocol} is left out: {escape(one['skipped'])}.</p>"
                continue
            title = f"{_name(job)}, protocol {protocol}: {one['users']} users"
            yield f"<h3>{escape(title)}</h3>"
            picture = figures / f"steer-{at}-{protocol}"
            yield _figure(lambda axes, one=one: _curves(axes, one), picture)
            _csv(picture.with_suffix(".csv"), list(_points(one)))
            head = ["way", "hypervolume", "95 % of users", "over the paper's", "area",
                    "personal lost where segment doubles"]  # fmt: skip
            yield _table(head, [_way(name, way) for name, way in one["ways"].items()])


def _way(name: str, way: dict[str, Any]) -> list[str]:
    volume = way["hypervolume"]
    return [
        name + (" (told of the concept's items)" if way["sees_truth"] else ""),
        _number(volume["value"], 4),
        f"{_number(volume['low'], 4)} to {_number(volume['high'], 4)}",
        _number(way["hypervolume_over_paper"]["value"], 2),
        _number(way["area"], 4),
        _percent(way["cost_of_doubling"]),
    ]


def _points(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The curves as a table: one row per way and strength, all metrics that have as many values."""
    for name, way in one["ways"].items():
        size = len(way["strengths"])
        columns = {key: v for key, v in way.items() if isinstance(v, list) and len(v) == size}
        for at in range(size):
            yield {"way": name, **{key: values[at] for key, values in columns.items()}}


def _curves(axes: Any, one: dict[str, Any]) -> None:
    for at, (name, way) in enumerate(one["ways"].items()):
        axes.errorbar(
            way["segment_ndcg"],
            way["personal_ndcg"],
            xerr=np.array(way["segment_se"], dtype=float),  # None, of one user, is NaN
            yerr=np.array(way["personal_se"], dtype=float),
            fmt="-o" if at < 10 else "--s",  # there are ten colours
            markersize=3,
            linewidth=1,
            elinewidth=0.5,
            label=name,
        )
    axes.set_xlabel("nDCG@20 of the wished concept (segment)")
    axes.set_ylabel("nDCG@20 of what the user did next (personal)")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _interpretability(jobs: list[dict[str, Any]]) -> Iterator[str]:
    found = [
        (job, job["results"]["interpretability"])
        for job in jobs
        if _has(job, "interpretability") and "detection" in job["results"]["interpretability"]
    ]
    if not found:
        return
    yield "<h2>Concepts: can the names be trusted?</h2>"
    yield "<p>In brackets: with tags moved to other items.</p>"
    head = ["model", "concepts", "reading AUC", "hard negatives", "knob AUC", "stated", "ECE",
            "intruder (chance 0.2)", "share under boost, times random"]  # fmt: skip
    yield _table(head, [_trust(job, one) for job, one in found])
    planted = [[_name(job), *_planted(one["planted"])] for job, one in found if "planted" in one]
    if planted:
        yield "<h3>Planted concepts: correlation of latents with users' planted preferences</h3>"
        yield _table(["model", "best latent", "with its splits", "distinct", "what the dense "
                      "embedding tells", "what can be known at all"], planted)  # fmt: skip
    for job, one in _first_of_each(found):
        yield f"<h3>Latent cards: {escape(_name(job))}</h3><div class=cards>"
        yield from map(_card, one.get("cards", []))
        yield "</div>"


def _first_of_each(found: list) -> list:
    """The first of each data set and base model."""
    firsts: dict[tuple[str, str], Any] = {}
    for job, one in found:
        firsts.setdefault((_cell(job)["data"], _cell(job)["model"]), (job, one))
    return list(firsts.values())


def _planted(one: dict[str, Any]) -> list[str]:
    limits = one["limits"]
    return [
        _number(one["best_latent"]),
        _number(one["with_splits"]),
        f"{one['distinct_latents']} of {one['concepts']}",
        _number(limits["embedding"]),
        _number(limits.get("posterior")),
    ]


def _users(jobs: list[dict[str, Any]], figures: Path) -> Iterator[str]:
    found = [(job, job["results"]["users"]) for job in jobs if _has(job, "users")]
    if found:
        yield "<h2>Users before and after a boost, by UMAP</h2>"
    for at, (job, one) in enumerate(found):
        yield f"<h3>{escape(_name(job))}, boost {one['alpha']:g}</h3>"
        yield _figure(lambda axes, one=one: _plane(axes, one), figures / f"users-{at}")
        _csv(figures / f"users-{at}.csv", [
            {"users": users, "x": x, "y": y}
            for users, places in itertools.chain(
                ((name, one[name]) for name in ("ground", "before")), one["after"].items()
            )
            for x, y in places
        ])  # fmt: skip
        rows = [[name, _percent(value)] for name, value in one["spread"].items()]
        yield _table(["boosted", "spread of the users' embeddings that is left"], rows)


def _plane(axes: Any, one: dict[str, Any]) -> None:
    axes.scatter(*zip(*one["ground"], strict=True), s=2, color="#ccc", label="training users")
    axes.scatter(*zip(*one["before"], strict=True), s=8, color="black", label="test users")
    for name, places in one["after"].items():
        axes.scatter(*zip(*places, strict=True), s=8, alpha=0.6, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _trust(job: dict[str, Any], one: dict[str, Any]) -> list[str]:
    real, null = one["detection"], one["shuffled"]
    names = ("reading_auc_median", "balanced_accuracy_hard", "knob_auc_median", "stated_median")
    others = [(one[name][key], null.get(name, {}).get(key), digits) for name, key, digits in (
        ("intruder", "accuracy", 3), ("intervention", "share_over_random", 1))]  # fmt: skip
    return [
        _name(job),
        str(one["concepts"]),
        *(f"{_number(real[name])} ({_number(null[name])})" for name in names),
        _number(real["ece"]),
        *(f"{_number(value, n)} ({_number(other, n)})" for value, other, n in others),
    ]


def _card(card: dict[str, Any]) -> str:
    kind = card["verdict"].split()[0]
    together = ", ".join(
        f"{escape(x['name'] or '#' + str(x['latent']))} ({x['overlap']:.0%})"
        for x in card["fires_with"]
    )
    new = [
        f"<li{'' if title in card['before'] else ' class=new'}>{escape(title)}</li>"
        for title in card["after"]
    ]
    return (
        f"<div class=card><h3>{escape(card['concept'])}</h3>latent {card['latent']}, "
        f"<span class={escape(kind)}>{escape(card['verdict'])}</span> "
        f"(confidence {_number(card['confidence'], 2)}, {card['items_with_concept']} items); fires "
        f"for {_percent(card['fires_for_share_of_users'])} of users"
        f"<p>Top items: {escape(', '.join(card['top_items']))}</p>{_bars(card['histogram'])}"
        f"<p>Fires with: {together or 'none'}</p>"
        f"<div class=lists><div>user {escape(card['user'])} before<ol>"
        f"{''.join(f'<li>{escape(title)}</li>' for title in card['before'])}</ol></div>"
        f"<div>boost {card['alpha']:g}<ol>{''.join(new)}</ol></div></div></div>"
    )


def _bars(histogram: dict[str, list[float]]) -> str:
    """Activations of users, as a small inline picture."""
    counts = histogram["counts"]
    if not counts:
        return ""
    highest, width = max(*counts, 1), 200 / len(counts)
    bars = "".join(
        f'<rect x="{at * width:.1f}" y="{40 - 40 * count / highest:.1f}" width="{width - 1:.1f}" '
        f'height="{40 * count / highest:.1f}" fill="#58a"/>'
        for at, count in enumerate(counts)
    )
    low, high = histogram["edges"][0], histogram["edges"][-1]
    return (
        f'<svg viewBox="0 0 200 54" width="200" role="img" aria-label="activations">{bars}'
        f'<text x="0" y="52" font-size="9">{low:.2g}</text>'
        f'<text x="200" y="52" font-size="9" text-anchor="end">{high:.2g}</text></svg>'
    )


def _figure(draw: Any, path: Path) -> str:
    """Draws once; PNG to `path`, SVG into the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.subplots())
    figure.savefig(path.with_suffix(".png"), dpi=150)
    text = io.StringIO()
    nameless = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # else it names web sites
    figure.savefig(text, format="svg", metadata=nameless)
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["metric"])
        writer.writeheader()
        writer.writerows(rows)


def _has(job: dict[str, Any], experiment: str) -> bool:
    return "skipped" not in job["results"].get(experiment, {"skipped": True})


def _cell(job: dict[str, Any]) -> dict[str, Any]:
    return job["job_cfg"]["cell"]


def _name(job: dict[str, Any]) -> str:
    return _text(_cell(job))


def _text(settings: dict[str, Any]) -> str:
    """A cell's settings in words, or those of them that are there."""
    return " ".join(
        text.format(settings[name])
        for name, text in _FIELDS.items()
        if settings.get(name) is not None and (name, settings[name]) != ("kind", "topk")
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
