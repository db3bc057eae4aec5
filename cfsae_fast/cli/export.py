"""Floor 7: `cfsae export`: a saved model as one .onnx file."""

from __future__ import annotations

from pathlib import Path

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
    required=True,
    help="The file to write; a manifest (and large weights) go beside it.",
)
@mode_option
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
    target: Path,
    mode: str,
    with_code: bool,
    opset: int,
    requests: int,
    as_json: bool,
) -> None:
    """Write a model for ONNX Runtime: history and knobs in, top-N out."""
    from cfsae_fast import export as room  # the one door from the library into the room export

    loaded = SteerableRecommender.load(model)
    path = room.to_onnx(loaded, target, mode=mode, with_code=with_code, opset=opset)
    manifest = room.read_manifest(path, verify=False)
    summary = {"path": str(path), "mode": mode, "files": manifest.files, "parity": {}}
    for graph, custom_ops in (("plain", False), ("custom", True)) if requests else ():
        found = room.check_parity(loaded, path, requests=requests, custom_ops=custom_ops)
        summary["parity"][graph] = {**found._asdict(), "holds": found.holds}
        note(
            f"{graph} graph, {requests} requests: {found.different} differ, error {found.error:.1e}"
        )
    if as_json:
        print_json(summary)
    else:
        for name, entry in manifest.files.items():
            out.print(f"{path.parent / name}  {entry['bytes']:,} bytes")
    if not all(one["holds"] for one in summary["parity"].values()):
        raise click.ClickException("the exported graph does not give the model's answers")
