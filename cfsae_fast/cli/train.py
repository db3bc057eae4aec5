"""Floor 7: `cfsae train` and `cfsae label`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cfsae_fast import concepts, evaluation, io
from cfsae_fast.cli.console import err, json_option, note, out, print_json, table
from cfsae_fast.cli.settings import Settings, read_settings
from cfsae_fast.data import Dataset, load
from cfsae_fast.recommender import SteerableRecommender, labelling, llm_names, probing


def train_on(
    dataset: Dataset, settings: Settings, folder: Path, *, seed: int, resume: bool = False
) -> tuple[SteerableRecommender, evaluation.Protocol, dict[str, Any]]:
    """The whole of an experiment: cut, train, name, judge, save under `folder`.

    Leaves model/ (all users stored), metrics.json, settings.json, and each stage's metrics.jsonl
    and checkpoint; a folder that was interrupted goes on with `resume`.
    """
    cut = evaluation.prepare(
        dataset,
        filters=settings.data.filters(),
        seed=seed,
        min_tag=settings.data.min_tag,
        compat=settings.sae.compat,
    )
    note(f"{cut.train!r} to train on, {cut.test.inputs.n_users} users to test")
    model = SteerableRecommender(
        settings.cfae,
        settings.sae,
        cfae_training=settings.cfae_training,
        sae_training=settings.sae_training,
        seed=seed,
    )
    model.fit(
        cut.train,
        cut.tags,
        titles=cut.dataset.titles,
        validation=cut.validation,
        run_dir=folder,
        resume=resume,
        progress=err.is_terminal,
    )
    metrics = evaluation.evaluate(model.fitted, cut.test)
    model = SteerableRecommender.from_fitted(evaluation.with_everybody(model.fitted, cut))
    model.save(folder / "model")
    io.write_json(folder / "metrics.json", metrics)
    io.write_json(folder / "settings.json", {**settings.to_dict(), "seed": seed})
    return model, cut, metrics


def show_metrics(metrics: dict[str, Any]) -> None:
    """The table of results of `evaluation.evaluate`."""
    n, rows = metrics["n"], []
    for mode in ("base", "reconstruct"):
        for metric in ("ndcg", "recall"):
            value = metrics[mode][metric]
            rows.append([f"{metric}@{n} {mode}", value["mean"], value["se"]])
        rows.append([f"coverage@{n} {mode}", metrics[mode]["coverage"], None])
    sae = metrics["sae"]
    rows += [
        ["nDCG kept by the SAE alone", metrics["ndcg_kept"], None],
        ["cosine of reconstruction", sae["cosine"]["mean"], sae["cosine"]["se"]],
        ["explained variance", sae["explained_variance"], None],
        ["latents active per user", sae["l0"]["mean"], sae["l0"]["se"]],
        ["dead latents (of all, train)", sae["dead_share_train"], None],
    ]
    table(f"{metrics['users']} test users", ["metric", "value", "+-"], rows)


@click.command()
@click.argument("source")
@click.option("--out", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--config", type=click.Path(path_type=Path), help="YAML or TOML with sections.")
@click.option("--set", "overrides", multiple=True, help="section.key=value, such as cfae.d=512.")
@click.option("--seed", default=42, show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the checkpoints in --out.")
@json_option
def train(
    source: str,
    folder: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    seed: int,
    resume: bool,
    as_json: bool,
) -> None:
    """Train CFAE and SAE on SOURCE, name the latents, judge them on held-out users, save.

    SOURCE is a path, a name, or "generated:users=1000,items=500". Sections of --config and --set:
    data, cfae, sae, cfae_training, sae_training.
    """
    settings = read_settings(config, overrides, seed)
    model, _, metrics = train_on(
        load(source, tags=settings.data.tags), settings, folder, seed=seed, resume=resume
    )
    if as_json:
        print_json({"model": str(folder / "model"), "metrics": metrics})
        return
    show_metrics(metrics)
    out.print(f"{model!r} lies in {folder / 'model'}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source")
@click.option(
    "--method",
    type=click.Choice([*concepts.METHODS, probing.METHOD]),
    help="How tags find latents (default: lift); toward has a map of its own, by probing.",
)
@click.option("--top", type=int, help="How many latents a concept of that method may have.")
@click.option("--min-tag", default=1, show_default=True, help="Fewest assignments of a tag.")
@click.option("--llm-url", help="Ask this OpenAI-compatible URL to name latents without a tag.")
@click.option("--llm-model", default="default", show_default=True, help="Its model.")
def label(
    model: Path,
    source: str,
    method: str | None,
    top: int | None,
    min_tag: int,
    llm_url: str | None,
    llm_model: str,
) -> None:
    """Name the latents of MODEL anew with the tags of SOURCE, and save it.

    All tags and all stored histories count, those of test users too: what `cfsae evaluate
    --steering` says afterwards is no longer held out. With --llm-url the titles of each nameless
    latent's strongest items are sent there (CFSAE_LLM_KEY: its key); without it nothing is.
    """
    loaded = SteerableRecommender.load(model)
    dataset = load(source, tags="both")
    if dataset.tags is None:
        raise ValueError(f"source must have tags, got none in {source!r}")
    kept = dataset.tags.min_count(min_tag)
    tags = labelling.onto(kept, dataset.interactions.item_ids, loaded.fitted.item_ids)
    loaded.label(tags, method=method, top=top)
    if llm_url:
        key = os.environ.get("CFSAE_LLM_KEY")
        named = llm_names.name_latents(loaded.fitted, url=llm_url, model=llm_model, key=key)
        names = {**loaded.fitted.latent_names, **named}
        loaded = SteerableRecommender.from_fitted(replace(loaded.fitted, latent_names=names))
        out.print(f"{len(named)} latents named by {llm_url}")
    loaded.save(model)
    out.print(f"{len(loaded.concept_map)} concepts in {model}")
