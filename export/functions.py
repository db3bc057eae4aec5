"""Room 3: what the nodes of the domain ai.cfsae mean, as functions of standard ONNX ops.

Station: CFAE.encode, SAE.encode, steer and SAE.decode, scores -> top-N, one function each. A model
carries them, so any ONNX Runtime runs it; where libcfsae_ort is registered, its kernels of the same
names take over. What a kernel refuses, a function refuses too: a guard gathers out of bounds in a
node whose name says what was wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cfsae_fast.errors import require_extra

DOMAIN = "ai.cfsae"
ADD_RELATIVE = 3  # a knob kind of graphs alone: ADD in units of the sum of the row's code
MOST_RECOMMENDED = 1 << 24  # csrc/onnxruntime/ops.cpp has it too,
MOST_ANSWERED = 1 << 28  # and this, of all rows together: 3 GiB

_CONSTANTS = {
    "zero": np.int64(0),
    "one": np.int64(1),
    "minus_one": np.int64(-1),
    "guarded": np.array([0], dtype=np.int64),
    "at_0": np.array([0], dtype=np.int64),
    "at_1": np.array([1], dtype=np.int64),
    "at_last": np.array([-1], dtype=np.int64),
    "at_end": np.array([2**62], dtype=np.int64),
    "zero_f": np.float32(0),
    "one_f": np.float32(1),
    "zero_f1": np.array([0], dtype=np.float32),
    "minus_inf": np.float32(-np.inf),
    "largest_f": np.float32(3.4e38),
    "most": np.int64(MOST_RECOMMENDED),
    "most_of_all": np.int64(MOST_ANSWERED),
    "std_epsilon": np.float32(1e-7),
    "mix_limit": np.float32(1 + 1e-5),
    "one_i": np.int64(1),
    "one_f1": np.array([1], dtype=np.float32),
    "two_i": np.int64(2),
    "three_i": np.int64(ADD_RELATIVE),
}


def guard(name: str, condition: str) -> str:
    """Lines that fail in a node called `name` unless every entry of `condition` holds."""
    return f"""
        {name}_false = Not ({condition})
        {name}_count = Cast <to = 7> ({name}_false)
        {name}_sum = ReduceSum <keepdims = 0> ({name}_count)
        {name}_index = Min ({name}_sum, one)
        {name} = Gather (guarded, {name}_index)
    """


def entries(p: str, ids: str, offsets: str, n_ids: str) -> str:
    """Lines that give {p}_ids, checked, {p}_row (whose row each belongs to) and {p}_n_rows."""
    return f"""
        {p}_bounds = Identity ({offsets})
        {p}_upper = Slice ({p}_bounds, at_1, at_end)
        {p}_lower = Slice ({p}_bounds, at_0, at_last)
        {p}_start = Gather ({p}_bounds, zero)
        {p}_stop = Gather ({p}_bounds, minus_one)
        {p}_size = Size ({ids})
        {p}_rises = GreaterOrEqual ({p}_upper, {p}_lower)
        {guard(f"{p}_offsets_must_rise", f"{p}_rises")}
        {p}_start_ok = GreaterOrEqual ({p}_start, zero)
        {p}_stop_ok = LessOrEqual ({p}_stop, {p}_size)
        {p}_within = And ({p}_start_ok, {p}_stop_ok)
        {guard(f"{p}_offsets_must_lie_within_the_entries", f"{p}_within")}
        {p}_safe_start = Add ({p}_start, {p}_offsets_must_rise)
        {p}_start_1 = Unsqueeze ({p}_safe_start, at_0)
        {p}_stop_1 = Unsqueeze ({p}_stop, at_0)
        {p}_taken = Slice ({ids}, {p}_start_1, {p}_stop_1)
        {p}_low_ok = GreaterOrEqual ({ids}, zero)
        {p}_high_ok = Less ({ids}, {n_ids})
        {p}_known = And ({p}_low_ok, {p}_high_ok)
        {guard(f"{p}_must_lie_in_range", f"{p}_known")}
        {p}_safe = Add ({p}_must_lie_in_range, {p}_offsets_must_lie_within_the_entries)
        {p}_ids = Add ({p}_taken, {p}_safe)
        {p}_relative = Sub ({p}_upper, {p}_start)
        {p}_length = Sub ({p}_stop_1, {p}_start_1)
        {p}_length_1 = Add ({p}_length, one)
        {p}_unmarked = Expand (zero, {p}_length_1)
        {p}_shape = Shape ({p}_upper)
        {p}_ones = Expand (one, {p}_shape)
        {p}_marks = ScatterElements <reduction = "add">
            ({p}_unmarked, {p}_relative, {p}_ones)
        {p}_sums = CumSum ({p}_marks, zero)
        {p}_row = Slice ({p}_sums, at_0, {p}_length)
        {p}_n_rows = Gather ({p}_shape, zero)
    """


def encode_rows(*, normalize: bool, opset: int) -> Any:
    """EncodeRows: (items, offsets, weight (I, d), bias (d,)) -> embedding (B, d).

    The sum of weights of a row's distinct items, divided by the row's length if normalize, + bias.
    A matrix of memberships does the summing; an entry of no row keeps it from being empty.
    """
    divided = "mean_free = Div (summed, norm)" if normalize else "mean_free = Identity (summed)"
    return function(
        f"""
        EncodeRows <normalize> (items, offsets, weight, bias) => (embedding) {{
        weight_shape = Shape (weight)
        n_items = Gather (weight_shape, zero)
        {entries("items", "items", "offsets", "n_items")}
        first_key = Mul (items_row, n_items)
        keys = Add (first_key, items_ids)
        distinct = Unique <sorted = 1> (keys)
        row = Div (distinct, n_items)
        item = Mod (distinct, n_items)
        rows = Concat <axis = 0> (row, at_last)
        taken = Concat <axis = 0> (item, at_0)
        gathered = Gather (weight, taken)
        every_row = Range (zero, items_n_rows, one)
        column = Unsqueeze (every_row, at_1)
        belongs = Equal (column, rows)
        member = Cast <to = 1> (belongs)
        summed = MatMul (member, gathered)
        counts = ReduceSum <keepdims = 1> (member, at_1)
        lengths = Sqrt (counts)
        any_item = Greater (counts, zero_f)
        norm = Where (any_item, lengths, one_f)
        {divided}
        embedding = Add (mean_free, bias)
        }}""",
        opset,
    )


def topk_encode(*, k: int, standardize: bool, d: int, threshold: float, opset: int) -> Any:
    """TopkEncode: (embedding (B, d), encoder (L, d), bias (L,), centre (d,)) -> code and stats.

    indices (B, k) int32 and values (B, k) of the k largest of relu((u - centre) @ encoder.T + bias)
    above `threshold`, padded with -1 / 0; mean and std (B,), 0 and 1 unless standardize.
    """
    return function(
        f"""
        TopkEncode <k, standardize, threshold> (embedding, encoder, bias, centre)
            => (indices, values, mean, std) {{
        {query(standardize, d)}
        {DENSE_CODE}
        {KEPT_CODE}
        }}""",
        opset,
        **code_constants(k, d, threshold),
    )


def query(standardize: bool, d: int) -> str:
    """Lines that give means, stds (B, 1) of embeddings, and `centred`, what the encoder sees."""
    if standardize and d > 1:
        stats = """
        means = ReduceMean <keepdims = 1> (embedding, at_1)
        apart = Sub (embedding, means)
        squares = Mul (apart, apart)
        square_sum = ReduceSum <keepdims = 1> (squares, at_1)
        variance = Div (square_sum, degrees)
        deviation = Sqrt (variance)
        stds = Add (deviation, std_epsilon)
        """
    elif standardize:
        stats = "means = Identity (embedding)\n stds = Add (zeros, one_f)"
    else:
        stats = "means = Identity (zeros)\n stds = Add (zeros, one_f)"
    return f"""
        any = ReduceSum <keepdims = 1> (embedding, at_1)
        zeros = Mul (any, zero_f)
        {stats}
        free = Sub (embedding, means)
        scaled = Div (free, stds)
        centred = Sub (scaled, centre)
    """


def code_constants(k: int, d: int, threshold: float) -> dict[str, np.ndarray]:
    """What `query`, DENSE_CODE and KEPT_CODE read besides a node's inputs."""
    return {
        "width": np.array([k], dtype=np.int64),
        "least": np.asarray(max(threshold, 0.0), dtype=np.float32),
        "degrees": np.asarray(max(d - 1, 1), dtype=np.float32),
    }


DENSE_CODE = """
        raw = Gemm <transB = 1> (centred, encoder, bias)
        nowhere = IsNaN (raw)
        pre = Where (nowhere, minus_inf, raw)
        best, order = TopK (pre, width)
"""

KEPT_CODE = """
        kept = Greater (best, least)
        chosen = Where (kept, order, minus_one)
        indices = Cast <to = 6> (chosen)
        values = Where (kept, best, zero_f)
        mean = Squeeze (means, at_1)
        std = Squeeze (stds, at_1)
"""


def recommend(*, opset: int) -> Any:
    """Recommend: embedding (B, d), items (I, d), bias (I,), seen rows, deny, n -> ids, scores.

    Top-n of embedding @ items.T + bias without each row's seen items and the denied; ids int64
    padded with -1, scores with -inf; ties to the smaller id.
    """
    return function(
        f"""
        Recommend (embedding, items, bias, seen, seen_offsets, deny, n) => (ids, scores) {{
        {ASKED}
        {DENSE_SCORES}
        {PADDED_ANSWER}
        }}""",
        opset,
    )


# the checks of a request, `width` (1,): how many can be found, `biased` (I,): -inf where denied
ASKED = f"""
        items_shape = Shape (items)
        n_items = Gather (items_shape, zero)
        {entries("seen", "seen", "seen_offsets", "n_items")}
        n_low = GreaterOrEqual (n, one)
        n_high = LessOrEqual (n, most)
        n_in_reach = And (n_low, n_high)
        rows_or_one = Max (seen_n_rows, one)
        n_of_row = Div (most_of_all, rows_or_one)
        n_fits = LessOrEqual (n, n_of_row)
        n_ok = And (n_in_reach, n_fits)
        {guard("n_must_be_at_least_1_and_no_absurd_number", "n_ok")}
        deny_low = GreaterOrEqual (deny, zero)
        deny_high = Less (deny, n_items)
        deny_ok = And (deny_low, deny_high)
        {guard("deny_must_lie_in_the_catalogue", "deny_ok")}
        denied = Add (deny, deny_must_lie_in_the_catalogue)
        n_checked = Add (n, n_must_be_at_least_1_and_no_absurd_number)
        wanted = Reshape (n_checked, at_last)
        n_items_1 = Unsqueeze (n_items, at_0)
        width = Min (wanted, n_items_1)
        deny_shape = Shape (deny)
        never = Expand (minus_inf, deny_shape)
        biased = ScatterElements (bias, denied, never)
        first_key = Mul (seen_row, n_items)
        keys = Add (first_key, seen_ids)
        keys_shape = Shape (keys)
        hidden = Expand (minus_inf, keys_shape)
"""

# `raw` scores (B, I) -> `unseen`: -inf where seen or not a number
UNSEEN = """
        nowhere = IsNaN (raw)
        ranked = Where (nowhere, minus_inf, raw)
        score_shape = Shape (ranked)
        flat = Reshape (ranked, at_last)
        unseen_flat = ScatterElements (flat, keys, hidden)
        unseen = Reshape <allowzero = 1> (unseen_flat, score_shape)
"""

DENSE_SCORES = f"""
        raw = Gemm <transB = 1> (embedding, items, biased)
        {UNSEEN}
        best, order = TopK (unseen, width)
"""

PADDED_ANSWER = """
        is_padding = Equal (best, minus_inf)
        found = Where (is_padding, minus_one, order)
        missing = Sub (wanted, width)
        padding = Concat <axis = 0> (at_0, at_0, at_0, missing)
        ids = Pad (found, padding, minus_one)
        scores = Pad (best, padding, minus_inf)
"""


def function(text: str, opset: int, **constants: Any) -> Any:
    """The FunctionProto of a text; names of `_CONSTANTS` and `constants` may stand in it."""
    onnx = require_extra("onnx", extra="onnx", purpose="export to ONNX")
    parser = require_extra("onnx.parser", extra="onnx", purpose="export to ONNX")
    head = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>\n'
    parsed = parser.parse_function(head + text)
    parsed.attribute.append("version")  # for libraries; no node of a function reads it
    known: Mapping[str, Any] = {**_CONSTANTS, **constants}
    used = [name for name in known if re.search(rf"\b{name}\b", text)]
    nodes = [
        onnx.helper.make_node("Constant", [], [name], value=_tensor(onnx, known[name]))
        for name in used
    ]
    for node in parsed.node:
        if node.op_type == "Gather" and node.input[0] == "guarded":
            node.name = node.output[0]
    nodes += list(parsed.node)
    del parsed.node[:]
    parsed.node.extend(nodes)
    return parsed


def _tensor(onnx: Any, value: Any) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(value))
