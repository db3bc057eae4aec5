"""Room 3: the nodes that read folded tables, as functions of standard ONNX ops.

Station: history -> code and code -> scores, by tables of products (cfsae_fast/ops/folded.py).

A table holds bytes, so it only excludes: candidates are rescored in fp32, and a bound on what the
bytes lost proves that none is missing. Where it does not, and for batches, where a dense product is
cheaper, an If takes the dense path. So the answer is that of the dense graph. Weights of a sum are
split in two digits of base 64, which MatMulInteger multiplies with the bytes as they lie in the
table; digits of at most 64 do not saturate where the processor adds byte products in 16 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cfsae_fast.export.functions import (
    ASKED,
    DENSE_CODE,
    DENSE_SCORES,
    KEPT_CODE,
    PADDED_ANSWER,
    UNSEEN,
    code_constants,
    entries,
    function,
    query,
)

FEW = 4  # rows; from more on, the dense products of the plain graph are faster
SPARE = 64  # candidates, beside two for each wanted
SPARE_ITEMS = 128
_SLACK = 1e-5  # of the largest product possible: what fp32 loses on either path

_DIGITS = {
    "few_rows": np.int64(FEW),
    "digit": np.float32(64),
    "digit_step": np.float32(128),
    "digit_zero": np.uint8(64),
    "digit_loss": np.float32(0.5),  # 127 * 0.5 / 128, rounded up
    "tiny": np.float32(1e-30),
    "slack": np.float32(_SLACK),
    "plus_inf": np.float32(np.inf),  # an empty row's embedding is no sum of the table's rows
    "up": np.float32(1.001),
    "spare_items": np.array([SPARE_ITEMS], dtype=np.int64),
}

# sums_of_rows (B, columns): rows `picked` of the table, weighted by `member` (B, entries), and
# tables_off (B,): how far off they are at most; total (B,): the sum of the weights
_TABLE_SUMS = """
        bytes = Gather (table, picked)
        row_scales = Gather (scales, picked)
        row_errors = Gather (errors, picked)
        weights = Mul (member, row_scales)
        sizes = Abs (weights)
        largest = ReduceMax <keepdims = 1> (sizes, at_1)
        exact_unit = Div (largest, digit)
        unit = Max (exact_unit, tiny)
        in_units = Div (weights, unit)
        high = Round (in_units)
        rest = Sub (in_units, high)
        rest_up = Mul (rest, digit_step)
        low = Round (rest_up)
        digits = Concat <axis = 0> (high, low)
        lifted = Add (digits, digit)
        as_bytes = Cast <to = 2> (lifted)
        products = MatMulInteger (as_bytes, bytes, digit_zero)
        products_f = Cast <to = 1> (products)
        of_high, of_low = Split <axis = 0, num_outputs = 2> (products_f)
        of_low_down = Div (of_low, digit_step)
        summed = Add (of_high, of_low_down)
        sums_of_rows = Mul (summed, unit)
        member_size = Abs (member)
        from_errors = MatMul (member_size, row_errors)
        is_member = Greater (member_size, zero_f)
        membership = Cast <to = 1> (is_member)
        n_members = ReduceSum <keepdims = 0> (membership, at_1)
        total = ReduceSum <keepdims = 0> (member_size, at_1)
        unit_flat = Squeeze (unit, at_1)
        members_off = Mul (n_members, unit_flat)
        from_digits = Mul (members_off, digit_loss)
        both_off = Add (from_errors, from_digits)
        tables_off = Mul (both_off, up)
        left_norm = Gather (norms, zero)
        right_norm = Gather (norms, one)
        norm_product = Mul (left_norm, right_norm)
        reach = Mul (total, norm_product)
        fp32_off = Mul (reach, slack)
        sums_off = Add (tables_off, fp32_off)
"""

# candidates (B, C) by `rough` values (B, columns), with their rows rescored by `question` (B, d)
_RESCORED = """
        near, candidate = TopK (rough, n_candidates)
        candidate_rows = Gather (row_matrix, candidate)
        question_column = Unsqueeze (question, at_last)
        dots_column = MatMul (candidate_rows, question_column)
        dots = Squeeze (dots_column, at_last)
        candidate_bias = Gather (row_bias, candidate)
        rescored = Add (dots, candidate_bias)
"""

# proven: nothing outside of the candidates can be among the best, nor tie with them
_PROVEN = """
        cut = Gather <axis = 1> (near, minus_one)
        last = Gather <axis = 1> (best_near, minus_one)
        reach_of_rest = Add (cut, off)
        is_beaten = Less (reach_of_rest, last)
        is_fine = Or (is_beaten, is_idle)
        is_open = Not (is_fine)
        open = Cast <to = 7> (is_open)
        n_open = ReduceSum <keepdims = 0> (open)
        proven_near = Equal (n_open, zero)
"""


def _chosen(near: str, dense: str) -> str:
    """Lines that give best, order (B, width): of `near` for few rows if proven, else of `dense`."""
    return f"""
        matrix_shape = Shape (embedding)
        rows_asked = Gather (matrix_shape, zero)
        at_least_one = Greater (rows_asked, zero)
        at_most_few = LessOrEqual (rows_asked, few_rows)
        is_few = And (at_least_one, at_most_few)
        near_best, near_order, proven = If (is_few) <
            then_branch = near_graph () => (best_near, order_near, proven_near) {{ {near} }},
            else_branch = no_graph () => (no_best, no_order, not_proven) {{
                no_best = Identity (embedding)
                no_order = Cast <to = 7> (embedding)
                not_proven = Equal (zero, one)
            }}>
        best, order = If (proven) <
            then_branch = found_graph () => (found_best, found_order) {{
                found_best = Identity (near_best)
                found_order = Identity (near_order)
            }},
            else_branch = dense_graph () => (best, order) {{ {dense} }}>
    """


def folded_topk_encode(*, k: int, standardize: bool, d: int, threshold: float, opset: int) -> Any:
    """FoldedTopkEncode: items, offsets, what TopkEncode takes, table (I, L) -> what it gives."""
    near = f"""
        first_key = Mul (items_row, n_items)
        keys = Add (first_key, items_ids)
        distinct = Unique <sorted = 1> (keys)
        row = Div (distinct, n_items)
        item = Mod (distinct, n_items)
        rows = Concat <axis = 0> (row, at_last)
        picked = Concat <axis = 0> (item, at_0)
        every_row = Range (zero, items_n_rows, one)
        column = Unsqueeze (every_row, at_1)
        belongs = Equal (column, rows)
        member = Cast <to = 1> (belongs)
        {_TABLE_SUMS}
        per_std = Div (sums_of_rows, stds)
        mean_per_std = Div (means, stds)
        of_mean = Mul (mean_per_std, sums)
        without_mean = Sub (per_std, of_mean)
        rough = Add (without_mean, shifts)
        question = Identity (centred)
        row_matrix = Identity (encoder)
        row_bias = Identity (bias)
        {_RESCORED}
        best_near, at_near = TopK (rescored, width)
        order_near = GatherElements <axis = 1> (candidate, at_near)
        std_flat = Squeeze (stds, at_1)
        std_off = Div (sums_off, std_flat)
        lengths = Sub (items_upper, items_lower)
        has_items = Greater (lengths, zero)
        off = Where (has_items, std_off, plus_inf)
        worst = Gather <axis = 1> (near, minus_one)
        worst_reach = Add (worst, off)
        is_idle = LessOrEqual (worst_reach, least)
        {_PROVEN}
    """
    return function(
        f"""
        FoldedTopkEncode <k, standardize, threshold> (items, offsets, embedding, encoder, bias,
            centre, table, scales, errors, sums, shifts, norms) => (indices, values, mean, std) {{
        table_shape = Shape (table)
        n_items = Gather (table_shape, zero)
        {entries("items", "items", "offsets", "n_items")}
        {query(standardize, d)}
        {_chosen(near, DENSE_CODE)}
        {KEPT_CODE}
        }}""",
        opset,
        **code_constants(k, d, threshold),
        **_DIGITS,
        n_candidates=np.array([2 * k + SPARE], dtype=np.int64),
    )


def folded_recommend(*, opset: int) -> Any:
    """FoldedRecommend: what Recommend takes, code, stats, table (L, I) -> what Recommend gives."""
    near = f"""
        code_ids = Cast <to = 7> (indices)
        real_ids = Max (code_ids, zero)
        picked = Reshape (real_ids, at_last)
        code_values = Reshape (values, at_last)
        code_shape = Shape (indices)
        code_width = Gather (code_shape, one)
        n_entries = Size (picked)
        entry = Range (zero, n_entries, one)
        owner = Div (entry, code_width)
        every_row = Range (zero, rows_asked, one)
        column = Unsqueeze (every_row, at_1)
        belongs = Equal (column, owner)
        member = Where (belongs, code_values, zero_f)
        {_TABLE_SUMS}
        std_column = Unsqueeze (std, at_1)
        mean_column = Unsqueeze (mean, at_1)
        shifted = Add (sums_of_rows, shifts)
        times_std = Mul (shifted, std_column)
        of_mean = Mul (mean_column, sums)
        with_mean = Add (times_std, of_mean)
        raw = Add (with_mean, biased)
        {UNSEEN}
        rough = Identity (unseen)
        question = Identity (embedding)
        row_matrix = Identity (items)
        row_bias = Identity (bias)
        twice = Add (width, width)
        many = Add (twice, spare_items)
        n_candidates = Min (many, n_items_1)
        {_RESCORED}
        is_hidden = Equal (near, minus_inf)
        shown = Where (is_hidden, minus_inf, rescored)
        best_near, at_near = TopK (shown, width)
        order_near = GatherElements <axis = 1> (candidate, at_near)
        off = Mul (sums_off, std)
        worst = Gather <axis = 1> (near, minus_one)
        none_left = Equal (worst, minus_inf)
        all_taken = Equal (n_candidates, n_items_1)
        is_idle = Or (none_left, all_taken)
        {_PROVEN}
    """
    return function(
        f"""
        FoldedRecommend (embedding, items, bias, seen, seen_offsets, deny, n, indices, values,
            mean, std, table, scales, errors, sums, shifts, norms) => (ids, scores) {{
        {ASKED}
        {_chosen(near, DENSE_SCORES)}
        {PADDED_ANSWER}
        }}""",
        opset,
        **_DIGITS,
    )


def leaves_out(k: int, n_latents: int) -> bool:
    """Whether candidates of a code leave latents out; where not, the dense nodes serve."""
    return 2 * k + SPARE < n_latents
