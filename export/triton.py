"""Room 3: a model repository for the Triton Inference Server, for those who outgrow one machine.

Station: history and knobs -> top-N, many clients' requests in one batch.

DIR/NAME/config.pbtxt          dynamic batching of ragged requests, the custom-op library
DIR/NAME/1/model.onnx, .data   the graph and its weights, which instances map and share
DIR/NAME/1/model.onnx.json     the manifest: ids and concepts, for clients
DIR/NAME/1/libcfsae_ort.so     the engine's kernels

Triton joins ragged inputs end to end and counts their entries: `offsets` and `knob_offsets` come
from it, as int32. A request is one history: items [1, m], knob_latents, knob_weights and knob_kinds
[1, k] (no knob: one of weight 0 and kind 0), n [1, 1]. The batch is answered with its largest n, so
a client takes the first n of what it gets. There is neither deny nor alpha: they hold for a whole
batch, and so for strangers.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from cfsae_fast.errors import require_extra
from cfsae_fast.export.files import write
from cfsae_fast.export.graph import Plan
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
_COUNTED = (("offsets", "items"), ("knob_offsets", "knob_latents"))
_INT32, _INT64 = 6, 7


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
    write(fitted, home / "1" / "model.onnx", plan, external=True, change=_for_triton)
    shutil.copy2(custom_ops_path(), home / "1" / LIBRARY)
    (home / "config.pbtxt").write_text(_config(name, f"{served_at.rstrip('/')}/{name}/1/{LIBRARY}"))
    return home


def _for_triton(model: Any) -> None:
    """Offsets as Triton counts them, one n per row, and neither deny nor alpha."""
    helper = require_extra("onnx", extra="onnx", purpose="export to ONNX").helper
    graph, first = model.graph, []
    given = {one.name: one for one in graph.input}
    for name, _ in _COUNTED:
        given[name].type.tensor_type.elem_type = _INT32
        first.append(helper.make_node("Cast", [name], [f"{name}_int64"], name=name, to=_INT64))
    given["n"].CopyFrom(helper.make_tensor_value_info("n", _INT64, ["batch", 1]))
    first.append(helper.make_node("ReduceMax", ["n"], ["n_int64"], name="largest_n", keepdims=0))
    renamed = {name: f"{name}_int64" for name in ("offsets", "knob_offsets", "n")}
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = renamed.get(name, name)
    kept = [given[name] for name, _ in (*_RAGGED, *_COUNTED)] + [given["n"]]
    nodes = [*first, *graph.node]
    defaults = {one.name for one in kept}
    weights = [one for one in graph.initializer if one.name not in defaults]
    for field, content in ((graph.input, kept), (graph.node, nodes), (graph.initializer, weights)):
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
    kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO
    target_name: "{one}"
    data_type: TYPE_INT32
    source_input: "{source}"
  }}"""
        for one, source in _COUNTED
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
  {{ name: "scores" data_type: TYPE_FP32 dims: [ -1 ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY} }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
model_operations {{ op_library_filename: "{library}" }}
"""


def _listed(entries: list[str]) -> str:
    return ",\n".join(entries)
