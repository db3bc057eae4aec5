"""Room 3: the nodes that turn knobs and decode, as functions of standard ONNX ops.

Station: code -> steer -> SAE.decode -> embedding'.
"""

from __future__ import annotations

from typing import Any

from cfsae_fast.export.functions import entries, function, guard


def steer_decode(*, residual: bool, gather: bool, opset: int) -> Any:
    """SteerDecode: embedding, code, stats, knobs, alpha, dictionary (L, d), bias -> (B, d).

    Decoding is linear, so knobs need not be merged into the code: the code's latents, scaled and
    mixed, and the knobs' own latents are decoded apart and added. gather: read the atoms of the
    code alone, else multiply with the whole dictionary (codes nearly as wide as it).
    """
    return function(
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
        {KNOBS}
        {CODE_AFTER_KNOBS}
        moved = Sub (mixed, values)
        coefficient = Identity ({"moved" if residual else "mixed"})
        {GATHERED if gather else MULTIPLIED}
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
KNOBS = f"""
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
CODE_AFTER_KNOBS = """
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

GATHERED = """
        atoms = Gather (dictionary, at)
        coefficient_row = Unsqueeze (coefficient, at_1)
        code_part_row = MatMul (coefficient_row, atoms)
        code_part = Squeeze (code_part_row, at_1)
"""

MULTIPLIED = """
        no_code = Expand (zero_f, table_rows)
        dense = ScatterElements <axis = 1, reduction = "add"> (no_code, at, coefficient)
        code_part = MatMul (dense, dictionary)
"""


def steer(*, opset: int) -> Any:
    """Steer: code, knobs, alpha, dictionary (L, d) -> the code after its knobs, unmerged.

    indices (B, k + m) int32 and values: the code's latents, scaled and mixed, then each row's own
    knobs; a latent may stand in both parts.
    """
    return function(
        f"""
        Steer (indices, values, knob_latents, knob_weights, knob_kinds, knob_offsets, alpha,
            dictionary) => (steered_indices, steered_values) {{
        dictionary_shape = Shape (dictionary)
        n_latents = Gather (dictionary_shape, zero)
        n_latents_1 = Unsqueeze (n_latents, at_0)
        code_shape = Shape (indices)
        n_rows = Gather (code_shape, zero)
        n_rows_1 = Unsqueeze (n_rows, at_0)
        {entries("knobs", "knob_latents", "knob_offsets", "n_latents")}
        {KNOBS}
        {CODE_AFTER_KNOBS}
        owned = ReduceSum <keepdims = 0> (member, at_1)
        owned_or_one = Concat <axis = 0> (owned, one_f1)
        most_f = ReduceMax <keepdims = 1> (owned_or_one)
        width = Cast <to = 7> (most_f)
        is_owned, own_at = TopK (member, width)
        own_values = GatherElements <axis = 1> (knob_coefficient, own_at)
        own_latents = Gather (latents, own_at)
        own_indices = Cast <to = 6> (own_latents)
        steered_indices = Concat <axis = 1> (indices, own_indices)
        steered_values = Concat <axis = 1> (mixed, own_values)
        }}""",
        opset,
    )


def sparse_decode(*, gather: bool, opset: int) -> Any:
    """SparseDecode: code, stats, dictionary (L, d), bias (d,) -> mean + std * (code @ dictionary +
    bias), (B, d). gather: as in steer_decode."""
    return function(
        f"""
        SparseDecode (indices, values, mean, std, dictionary, bias) => (decoded) {{
        padded = Cast <to = 7> (indices)
        at = Max (padded, zero)
        coefficient = Identity (values)
        {GATHERED if gather else WIDE}
        with_bias = Add (code_part, bias)
        scale = Unsqueeze (std, at_1)
        shift = Unsqueeze (mean, at_1)
        scaled = Mul (with_bias, scale)
        decoded = Add (shift, scaled)
        }}""",
        opset,
    )


WIDE = f"""
        code_shape = Shape (indices)
        n_rows_1 = Slice (code_shape, at_0, at_1)
        dictionary_shape = Shape (dictionary)
        n_latents_1 = Slice (dictionary_shape, at_0, at_1)
        table_rows = Concat <axis = 0> (n_rows_1, n_latents_1)
        {MULTIPLIED}
"""
