"""Floor 7: `cfsae export`: a saved model as one .onnx file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cfsae_fast.cli.ask import mode_option, model_argument
from cfsae_fast.cli.console import json_option, note, out, print_json
from cfsae_fast.recommender import SteerableRecommender


@click.command()
@model_argument
@click.option(
    "--onnx",
    "target",
    type=click.Path(path_type=Path),
    help="The file to write; a manifest (and large weights) go beside it.",
)
@click.option(
    "--triton",
    "repository",
    type=click.Path(path_type=Path, file_okay=False),
    help="A model repository for the Triton Inference Server to write into.",
)
@click.option("--name", default="cfsae", show_default=True, help="Of the model in --triton.")
@mode_option
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the weights in the file; below fp32, what it costs in nDCG is measured and told.",
)
@click.option("--folded", is_flag=True, help="Tables of products; they pay in mode reconstruct.")
@click.option("--external", is_flag=True, help="Weights in a file of their own, to be mapped.")
@click.option("--all-inputs", is_flag=True, help="No input has a default: for browsers.")
@click.option("--with-code", is_flag=True, help="Give the code out too (code_indices, values).")
@click.option("--opset", default=18, show_default=True, help="Version of the standard ops.")
@click.option(
    "--check",
    "requests",
    default=0,
    metavar="N",
    help="Ask N random requests of the file and of the model, and compare (needs onnxruntime).",
)
@json_option
def export(
    model: Path,
    target: Path | None,
    repository: Path | None,
    name: str,
    mode: str,
    precision: str,
    folded: bool,
    external: bool,
    all_inputs: bool,
    with_code: bool,
    opset: int,
    requests: int,
    as_json: bool,
) -> None:
    """Write a model for ONNX Runtime: history and knobs in, top-N out."""
    from cfsae_fast import export as room  # the one door from the library into the room export

    if target is None and repository is None:
        raise click.UsageError("--onnx FILE or --triton DIR must be given")
    loaded = SteerableRecommender.load(model)
    if repository is not None:
        home = room.to_triton(loaded, repository, name=name, mode=mode, folded=folded)
        note(f"wrote {home}; tritonserver --model-repository {repository}")
    if target is None:
        return
    options = {"mode": mode, "with_code": with_code, "opset": opset}
    options |= {"precision": precision, "folded": folded, "external": external or None}
    options["defaults"] = not all_inputs
    path = room.to_onnx(loaded, target, **options)
    manifest = room.read_manifest(path, verify=False)
    summary = {"path": str(path), "mode": mode, "files": manifest.files}
    if precision != "fp32":
        summary["loss"] = _loss(room.measure_loss(loaded, path), precision)
    summary["parity"] = _parity(room, room.lower(loaded.fitted, precision)[0], path, requests)
    if as_json:
        print_json(summary)
    else:
        for name, entry in manifest.files.items():
            out.print(f"{path.parent / name}  {entry['bytes']:,} bytes")
    if not all(one["holds"] for one in summary["parity"].values()):
        raise click.ClickException("the exported graph does not give the model's answers")


def _loss(loss: Any, precision: str) -> dict[str, Any]:
    note(
        f"{precision}: nDCG@{loss.n} of {loss.users:,} stored users {loss.model:.4f} -> "
        f"{loss.graph:.4f} ({loss.lost:+.2%} lost)"
    )
    return {**loss._asdict(), "lost": loss.lost}


def _parity(room: Any, model: Any, path: Path, requests: int) -> dict[str, Any]:
    """Both graphs beside the model whose weights the file holds."""
    found = {}
    for graph, custom_ops in (("plain", False), ("custom", True)) if requests else ():
        one = room.check_parity(model, path, requests=requests, custom_ops=custom_ops)
        found[graph] = {**one._asdict(), "holds": one.holds}
        note(f"{graph} graph, {requests} requests: {one.different} differ, error {one.error:.1e}")
    return found
