"""Room 3: a model repository for the Triton Inference Server, for those who outgrow one machine.

Station: history and knobs -> top-N, many clients' requests in one batch.

DIR/NAME/config.pbtxt          dynamic batching of ragged requests, the custom-op library
DIR/NAME/1/model.onnx, .data   the graph and its weights, which instances map and share
DIR/NAME/1/model.onnx.json     the manifest: ids and concepts, for clients
DIR/NAME/1/libcfsae_ort.so     the engine's kernels

Triton joins ragged inputs end to end and tells each row's share of them (BATCH_ITEM_SHAPE, the one
kind that counts the rows of a request, not the requests). A row is one history: items [m],
knob_latents, knob_weights and knob_kinds [k] (no knob: one of weight 0 and kind 0), n [1]; a
request brings one row, or several that are equally long. All rows are answered with the batch's
largest n: a client takes the first n of what it gets. Whoever asks something wrong gets ids of -1
and `refused` (joined.py), and the others what they would get alone. There is neither deny nor
alpha: they hold for a whole batch, and so for strangers.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

from cfsae_fast.errors import require_extra
from cfsae_fast.export import joined
from cfsae_fast.export.files import write
from cfsae_fast.export.functions import DOMAIN
from cfsae_fast.export.graph import TOP, Plan
from cfsae_fast.export.sessions import LIBRARY, custom_ops_path
from cfsae_fast.recommender import SteerableRecommender
from cfsae_fast.recommender.fitted import Fitted

NAME = "cfsae"
SERVED_AT = "/models"  # where the server sees the repository; its images suggest this place
MAX_BATCH = 64
QUEUE_DELAY = 500  # microseconds that a request may wait for company: about one request's work

_RAGGED = (
    ("items", "TYPE_INT64"),
    ("knob_latents", "TYPE_INT64"),
    ("knob_weights", "TYPE_FP32"),
    ("knob_kinds", "TYPE_INT64"),
)
_COUNTED = {  # what Triton makes of which ragged input
    "item_counts": "items",
    "latent_counts": "knob_latents",
    "weight_counts": "knob_weights",
    "kind_counts": "knob_kinds",
}
_SAFE = {  # what the graph reads, and what CheckRequests makes of it
    "items": "safe_items",
    "offsets": "safe_offsets",
    "knob_latents": "safe_latents",
    "knob_weights": "safe_weights",
    "knob_kinds": "safe_kinds",
    "knob_offsets": "safe_knob_offsets",
    "n": "largest_n",
}
_FLOAT, _INT32, _INT64, _BOOL = 1, 6, 7, 9


def to_triton(
    recommender: SteerableRecommender | Fitted,
    directory: str | os.PathLike,
    *,
    name: str = NAME,
    mode: str = "residual",
    folded: bool = False,
    served_at: str = SERVED_AT,
) -> Path:
    """Write the model `name` into the repository `directory`; the folder of the model.

    served_at: the repository's place on the server, where Triton loads the library from.

    Raises:
        ValueError: name is no plain folder name, or an argument is none of those possible.
        MissingExtraError: onnx is not installed (extra "onnx").
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"name must be letters, digits, '_', '.' or '-', got {name!r}")
    fitted = recommender if isinstance(recommender, Fitted) else recommender.fitted
    home = Path(directory) / name
    plan = Plan(mode, 18, False, folded)
    sizes = {"n_items": fitted.cfae.n_items, "n_latents": fitted.sae.n_latents}
    check = joined.check_requests(**sizes, opset=plan.opset)
    model = home / "1" / "model.onnx"
    write(fitted, model, plan, external=True, change=lambda proto: _for_triton(proto, check))
    shutil.copy2(custom_ops_path(), home / "1" / LIBRARY)
    (home / "config.pbtxt").write_text(_config(name, f"{served_at.rstrip('/')}/{name}/1/{LIBRARY}"))
    return home


def _for_triton(model: Any, check: Any) -> None:
    """Joined rows checked one by one before the graph, refused ones blanked behind it."""
    helper = require_extra("onnx", extra="onnx", purpose="export to ONNX").helper
    graph = model.graph
    given = {one.name: one for one in graph.input}
    ragged = [given[name] for name, _ in _RAGGED]
    counts = [helper.make_tensor_value_info(one, _INT32, ["batch", 1]) for one in _COUNTED]
    n = helper.make_tensor_value_info("n", _INT64, ["batch", 1])
    read = [name for pair in zip(_COUNTED.values(), _COUNTED, strict=True) for name in pair]
    first = helper.make_node(
        joined.NAME, [*read, "n"], [*_SAFE.values(), "refused"], name=joined.NAME, domain=DOMAIN
    )
    for node in graph.node:
        renamed = [_SAFE.get(name, name) for name in node.input]
        found = [f"found_{name}" if name in TOP else name for name in node.output]
        for field, names in ((node.input, renamed), (node.output, found)):
            field[:] = names
    model.functions.append(check)
    last = [
        helper.make_node("Cast", ["refused"], ["is_refused"], name="is_refused", to=_BOOL),
        helper.make_node("Where", ["is_refused", "nothing", "found_ids"], ["ids"], name="ids"),
        helper.make_node("Where", ["is_refused", "no_score", "found_scores"], ["scores"], "scores"),
    ]
    weights = [one for one in graph.initializer if one.name not in _SAFE]
    weights += [
        helper.make_tensor("nothing", _INT64, [], [-1]),
        helper.make_tensor("no_score", _FLOAT, [], [-math.inf]),
    ]
    nodes = [first, *graph.node, *last]
    inputs = [*ragged, *counts, n]
    kept = ((graph.input, inputs), (graph.node, nodes), (graph.initializer, weights))
    graph.output.append(helper.make_tensor_value_info("refused", _INT32, ["batch", 1]))
    for field, content in kept:
        content = [type(one).FromString(one.SerializeToString()) for one in content]
        del field[:]
        field.extend(content)


def _config(name: str, library: str) -> str:
    inputs = [
        f'  {{ name: "{one}" data_type: {kind} dims: [ -1 ] allow_ragged_batch: true }}'
        for one, kind in _RAGGED
    ]
    inputs.append('  { name: "n" data_type: TYPE_INT64 dims: [ 1 ] }')
    counted = [
        f"""  {{
    kind: BATCH_ITEM_SHAPE
    target_name: "{one}"
    data_type: TYPE_INT32
    source_input: "{source}"
  }}"""
        for one, source in _COUNTED.items()
    ]
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: {MAX_BATCH}
input [
{_listed(inputs)}
]
batch_input [
{_listed(counted)}
]
output [
  {{ name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }},
  {{ name: "scores" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "refused" data_type: TYPE_INT32 dims: [ 1 ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY} }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
model_operations {{ op_library_filename: "{library}" }}
"""


def _listed(entries: list[str]) -> str:
    return ",\n".join(entries)
