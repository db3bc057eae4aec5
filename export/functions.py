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
MOST_RECOMMENDED = 1 << 24  # csrc/onnxruntime/ops.cpp has it too

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
    "std_epsilon": np.float32(1e-7),
    "mix_limit": np.float32(1 + 1e-5),
    "one_i": np.int64(1),
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
    return _function(
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
    return _function(
        f"""
        TopkEncode <k, standardize, threshold> (embedding, encoder, bias, centre)
            => (indices, values, mean, std) {{
        any = ReduceSum <keepdims = 1> (embedding, at_1)
        zeros = Mul (any, zero_f)
        {stats}
        free = Sub (embedding, means)
        scaled = Div (free, stds)
        centred = Sub (scaled, centre)
        raw = Gemm <transB = 1> (centred, encoder, bias)
        nowhere = IsNaN (raw)
        pre = Where (nowhere, minus_inf, raw)
        best, order = TopK (pre, width)
        kept = Greater (best, least)
        chosen = Where (kept, order, minus_one)
        indices = Cast <to = 6> (chosen)
        values = Where (kept, best, zero_f)
        mean = Squeeze (means, at_1)
        std = Squeeze (stds, at_1)
        }}""",
        opset,
        width=np.array([k], dtype=np.int64),
        least=np.float32(max(threshold, 0.0)),
        degrees=np.float32(max(d - 1, 1)),
    )


def steer_decode(*, residual: bool, gather: bool, opset: int) -> Any:
    """SteerDecode: embedding, code, stats, knobs, alpha, dictionary (L, d), bias -> (B, d).

    Decoding is linear, so knobs need not be merged into the code: the code's latents, scaled and
    mixed, and the knobs' own latents are decoded apart and added. gather: read the atoms of the
    code alone, else multiply with the whole dictionary (codes nearly as wide as it).
    """
    return _function(
        f"""
        SteerDecode <residual> (embedding, indices, values, mean, std, knob_latents, knob_weights,
            knob_kinds, knob_offsets, alpha, dictionary, bias) => (decoded) {{
        dictionary_shape = Shape (dictionary)
        n_latents = Gather (dictionary_shape, zero)
        n_latents_1 = Unsqueeze (n_latents, at_0)
        code_shape = Shape (indices)
        n_rows = Gather (code_shape, zero)
        n_rows_1 = Unsqueeze (n_rows, at_0)
        {entries("knobs", "knob_latents", "knob_offsets", "n_latents")}
        {_KNOBS}
        {_CODE_AFTER_KNOBS}
        moved = Sub (mixed, values)
        coefficient = Identity ({"moved" if residual else "mixed"})
        {_GATHERED if gather else _MULTIPLIED}
        knob_atoms = Gather (dictionary, latents)
        knob_part = MatMul (knob_coefficient, knob_atoms)
        summed = Add (code_part, knob_part)
        with_bias = Add (summed, bias)
        scale = Unsqueeze (std, at_1)
        shift = Unsqueeze (mean, at_1)
        scaled = Mul ({"summed" if residual else "with_bias"}, scale)
        decoded = Add ({"embedding" if residual else "shift"}, scaled)
        }}""",
        opset,
    )


# weights per kind, and which knobs are whose: belongs (B, m + 1), the last an entry of no weight
_KNOBS = f"""
        alone = Equal (knobs_n_rows, one)
        fitting = Equal (knobs_n_rows, n_rows)
        knob_rows_ok = Or (alone, fitting)
        {guard("knob_offsets_must_have_one_row_or_one_per_history", "knob_rows_ok")}
        kind_low = GreaterOrEqual (knob_kinds, zero)
        kind_high = LessOrEqual (knob_kinds, three_i)
        kind_ok = And (kind_low, kind_high)
        {guard("knob_kinds_must_lie_in_0_to_3", "kind_ok")}
        weight_size = Abs (knob_weights)
        weight_finite = Less (weight_size, largest_f)
        weight_positive = GreaterOrEqual (knob_weights, zero_f)
        kind_adds = GreaterOrEqual (knob_kinds, two_i)
        weight_sign = Or (weight_positive, kind_adds)
        weight_ok = And (weight_finite, weight_sign)
        {guard("knob_weights_must_be_finite_and_not_negative_for_mix_and_scale", "weight_ok")}
        alpha_low = GreaterOrEqual (alpha, zero_f)
        alpha_high = LessOrEqual (alpha, one_f)
        alpha_ok = And (alpha_low, alpha_high)
        {guard("alpha_must_lie_in_0_to_1", "alpha_ok")}
        checked_a = Add (knob_kinds_must_lie_in_0_to_3, alpha_must_lie_in_0_to_1)
        checked_b = Add (checked_a, knob_offsets_must_have_one_row_or_one_per_history)
        checked = Add (
            checked_b, knob_weights_must_be_finite_and_not_negative_for_mix_and_scale)
        kinds_all = Add (knob_kinds, checked)
        kinds_taken = Slice (kinds_all, knobs_start_1, knobs_stop_1)
        weights_taken = Slice (knob_weights, knobs_start_1, knobs_stop_1)
        latents = Concat <axis = 0> (knobs_ids, at_0)
        kinds = Concat <axis = 0> (kinds_taken, at_0)
        weights = Concat <axis = 0> (weights_taken, zero_f1)
        owner = Concat <axis = 0> (knobs_row, at_last)
        is_mix = Equal (kinds, zero)
        is_scale = Equal (kinds, one_i)
        is_add = Equal (kinds, two_i)
        is_relative = Equal (kinds, three_i)
        strength = Mul (weights, alpha)
        mix = Where (is_mix, strength, zero_f)
        add = Where (is_add, weights, zero_f)
        relative = Where (is_relative, weights, zero_f)
        every_row = Range (zero, n_rows, one)
        column = Unsqueeze (every_row, at_1)
        own = Equal (column, owner)
        belongs = Or (own, alone)
        member = Cast <to = 1> (belongs)
        mix_of_row = Mul (member, mix)
        total_mix = ReduceSum <keepdims = 1> (mix_of_row, at_1)
        mix_ok = LessOrEqual (total_mix, mix_limit)
        {guard("knob_weights_of_mixes_must_sum_to_at_most_1", "mix_ok")}
"""

# factors of scale stand in a table (knob rows, L), of which the code's latents take theirs
_CODE_AFTER_KNOBS = """
        padded = Cast <to = 7> (indices)
        at = Max (padded, zero)
        table_size = Mul (knobs_n_rows, n_latents)
        table_size_1 = Unsqueeze (table_size, at_0)
        ones_flat = Expand (one_f, table_size_1)
        knob_first = Mul (knobs_row, n_latents)
        knob_key = Add (knob_first, knobs_ids)
        scales_now = Equal (kinds_taken, one_i)
        factor = Where (scales_now, weights_taken, one_f)
        table_flat = ScatterElements <reduction = "mul"> (ones_flat, knob_key, factor)
        table_shape = Concat <axis = 0> (at_last, n_latents_1)
        table = Reshape (table_flat, table_shape)
        table_rows = Concat <axis = 0> (n_rows_1, n_latents_1)
        tables = Expand (table, table_rows)
        factors = GatherElements <axis = 1> (tables, at)
        scaled_code = Mul (values, factors)
        before = ReduceSum <keepdims = 1> (values, at_1)
        total = ReduceSum <keepdims = 1> (scaled_code, at_1)
        no_activation = Equal (total, zero_f)
        at_most_1 = Min (total_mix, one_f)
        share = Sub (one_f, at_most_1)
        guard_f = Cast <to = 1> (knob_weights_of_mixes_must_sum_to_at_most_1)
        share_safe = Add (share, guard_f)
        keep = Where (no_activation, one_f, share_safe)
        mixed = Mul (scaled_code, keep)
        from_mix = Mul (total, mix)
        from_relative = Mul (before, relative)
        both = Add (from_mix, from_relative)
        amounts = Add (both, add)
        knob_coefficient = Mul (member, amounts)
"""

_GATHERED = """
        atoms = Gather (dictionary, at)
        coefficient_row = Unsqueeze (coefficient, at_1)
        code_part_row = MatMul (coefficient_row, atoms)
        code_part = Squeeze (code_part_row, at_1)
"""

_MULTIPLIED = """
        no_code = Expand (zero_f, table_rows)
        dense = ScatterElements <axis = 1, reduction = "add"> (no_code, at, coefficient)
        code_part = MatMul (dense, dictionary)
"""


def recommend(*, opset: int) -> Any:
    """Recommend: embedding (B, d), items (I, d), bias (I,), seen rows, deny, n -> ids, scores.

    Top-n of embedding @ items.T + bias without each row's seen items and the denied; ids int64
    padded with -1, scores with -inf; ties to the smaller id.
    """
    return _function(
        f"""
        Recommend (embedding, items, bias, seen, seen_offsets, deny, n) => (ids, scores) {{
        items_shape = Shape (items)
        n_items = Gather (items_shape, zero)
        {entries("seen", "seen", "seen_offsets", "n_items")}
        n_low = GreaterOrEqual (n, one)
        n_high = LessOrEqual (n, most)
        n_ok = And (n_low, n_high)
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
        raw = Gemm <transB = 1> (embedding, items, bias)
        nothing_denied = Expand (zero_f, n_items_1)
        deny_shape = Shape (deny)
        never = Expand (minus_inf, deny_shape)
        penalty = ScatterElements (nothing_denied, denied, never)
        penalised = Add (raw, penalty)
        nowhere = IsNaN (penalised)
        ranked = Where (nowhere, minus_inf, penalised)
        score_shape = Shape (ranked)
        flat = Reshape (ranked, at_last)
        first_key = Mul (seen_row, n_items)
        keys = Add (first_key, seen_ids)
        keys_shape = Shape (keys)
        hidden = Expand (minus_inf, keys_shape)
        unseen_flat = ScatterElements (flat, keys, hidden)
        unseen = Reshape <allowzero = 1> (unseen_flat, score_shape)
        best, order = TopK (unseen, width)
        is_padding = Equal (best, minus_inf)
        found = Where (is_padding, minus_one, order)
        missing = Sub (wanted, width)
        padding = Concat <axis = 0> (at_0, at_0, at_0, missing)
        ids = Pad (found, padding, minus_one)
        scores = Pad (best, padding, minus_inf)
        }}""",
        opset,
    )


def _function(text: str, opset: int, **constants: Any) -> Any:
    """The FunctionProto of a text; names of `_CONSTANTS` and `constants` may stand in it."""
    onnx = require_extra("onnx", extra="onnx", purpose="export to ONNX")
    parser = require_extra("onnx.parser", extra="onnx", purpose="export to ONNX")
    head = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>\n'
    function = parser.parse_function(head + text)
    known: Mapping[str, Any] = {**_CONSTANTS, **constants}
    used = [name for name in known if re.search(rf"\b{name}\b", text)]
    nodes = [
        onnx.helper.make_node("Constant", [], [name], value=_tensor(onnx, known[name]))
        for name in used
    ]
    for node in function.node:
        if node.op_type == "Gather" and node.input[0] == "guarded":
            node.name = node.output[0]
    nodes += list(function.node)
    del function.node[:]
    function.node.extend(nodes)
    return function


def _tensor(onnx: Any, value: Any) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(value))
