"""Room 3: requests of strangers, joined into one batch: each row is checked alone.

Station: before history -> embedding, in a Triton repository (triton.py). The nodes of the graph
refuse a wrong request as a whole, and with it whatever was joined to it. So a row that they would
refuse is emptied here, and answered by ids of -1 and the sum of what is wrong with it (WRONG).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cfsae_fast.export.functions import function

NAME = "CheckRequests"
MOST_N = 1000  # one client's n is what all rows of its batch are answered with
WRONG = {  # what `refused` sums up
    1: "items must lie in the catalogue",
    2: "knobs must be latents, kinds of 0 to 3, finite weights (mixes: of sum 1, scales: once)",
    4: "knob_latents, knob_weights and knob_kinds must be equally many",
    8: f"n must lie in [1, {MOST_N}]",
}


def _counted(p: str, entries: str, counts: str) -> str:
    """Lines that give {p}_flat, what each row counts, {p}_offsets, and {p}_row, the entries' rows.

    Counts that do not add up to the entries fail: no row may get another's.
    """
    return f"""
        {p}_wide = Cast <to = 7> ({counts})
        {p}_flat = Reshape ({p}_wide, at_last)
        {p}_ends = CumSum ({p}_flat, zero)
        {p}_offsets = Concat <axis = 0> (at_0, {p}_ends)
        {p}_total = Shape ({entries})
        {p}_room = Add ({p}_total, one)
        {p}_unmarked = Expand (zero, {p}_room)
        {p}_shape = Shape ({p}_ends)
        {p}_ones = Expand (one, {p}_shape)
        {p}_marks = ScatterElements <axis = 0, reduction = "add"> ({p}_unmarked, {p}_ends, {p}_ones)
        {p}_sums = CumSum ({p}_marks, zero)
        {p}_row = Slice ({p}_sums, at_0, {p}_total)
    """


def _rows_with(p: str, bad: str, row: str) -> str:
    """Lines that give {p} (rows,): whether an entry of the row is `bad`."""
    return f"""
        {p}_counts = Cast <to = 7> ({bad})
        {p}_none = Expand (zero, rows_shape)
        {p}_sums = ScatterElements <axis = 0, reduction = "add"> ({p}_none, {row}, {p}_counts)
        {p} = Greater ({p}_sums, zero)
    """


def _aligned(p: str, entries: str, nothing: str) -> str:
    """Lines that give own_{p}: of every latent, the entry at its place in its row of {p}."""
    return f"""
        {p}_first = Gather ({p}_offsets, latents_row)
        {p}_wanted = Add ({p}_first, place)
        {p}_at = Min ({p}_wanted, {p}_total)
        {p}_and_none = Concat <axis = 0> ({entries}, {nothing})
        own_{p} = Gather ({p}_and_none, {p}_at)
    """


# `knobs_bad` (rows,): what the nodes would refuse in own_weights and own_kinds of `latents`; a row
# of unlike lengths (not as_many) has entries of its neighbours there: they must not tell in its
# answer
_KNOBS = f"""
        latent_low = GreaterOrEqual (latents, zero)
        latent_high = Less (latents, n_latents)
        latent_ok = And (latent_low, latent_high)
        kind_low = GreaterOrEqual (own_kinds, zero)
        kind_high = LessOrEqual (own_kinds, three_i)
        kind_ok = And (kind_low, kind_high)
        size = Abs (own_weights)
        finite = Less (size, largest_f)
        positive = GreaterOrEqual (own_weights, zero_f)
        adds = GreaterOrEqual (own_kinds, two_i)
        sign_ok = Or (positive, adds)
        known = And (latent_ok, kind_ok)
        weighed = And (finite, sign_ok)
        each_ok = And (known, weighed)
        scales = Equal (own_kinds, one_i)
        low_latents = Max (latents, zero)
        of_row = Mul (latents_row, n_latents)
        scale_key = Add (of_row, low_latents)
        below_none = Sub (minus_one, every_knob)
        key = Where (scales, scale_key, below_none)
        keys = Concat <axis = 0> (key, lowest)
        distinct, first, inverse, counts = Unique <sorted = 1> (keys)
        how_often = Gather (counts, inverse)
        of_knobs = Slice (how_often, at_0, latents_total)
        once = LessOrEqual (of_knobs, one)
        knob_ok = And (each_ok, once)
        knob_bad = Not (knob_ok)
        {_rows_with("knob_rows", "knob_bad", "latents_row")}
        mixes = Equal (own_kinds, zero)
        mixes_fine = And (mixes, weighed)
        mix = Where (mixes_fine, own_weights, zero_f)
        no_mix = Expand (zero_f, rows_shape)
        mix_sums = ScatterElements <axis = 0, reduction = "add"> (no_mix, latents_row, mix)
        too_much = Greater (mix_sums, mix_limit)
        some_bad = Or (knob_rows, too_much)
        knobs_bad = And (some_bad, as_many)
"""

_REFUSED = """
        one_each = Cast <to = 7> (items_bad)
        two_each = Cast <to = 7> (knobs_bad)
        four_each = Cast <to = 7> (counts_bad)
        eight_each = Cast <to = 7> (n_bad)
        twos = Mul (two_each, two_i)
        fours = Mul (four_each, four)
        eights = Mul (eight_each, eight)
        sum_a = Add (one_each, twos)
        sum_b = Add (sum_a, fours)
        reasons = Add (sum_b, eights)
        reasons_column = Unsqueeze (reasons, at_1)
        refused = Cast <to = 6> (reasons_column)
        is_refused = Greater (reasons, zero)
"""


def check_requests(*, n_items: int, n_latents: int, opset: int) -> Any:
    """CheckRequests: ragged items and knobs with what each row counts of them, n (rows, 1) -> what
    the graph takes, and refused (rows, 1) int32: 0, or the sum of keys of WRONG."""
    return function(
        f"""
        CheckRequests (items, item_counts, latents, latent_counts, weights, weight_counts, kinds,
            kind_counts, n) => (safe_items, items_offsets, safe_latents, safe_weights, safe_kinds,
            latents_offsets, largest_n, refused) {{
        {_counted("items", "items", "item_counts")}
        {_counted("latents", "latents", "latent_counts")}
        {_counted("weights", "weights", "weight_counts")}
        {_counted("kinds", "kinds", "kind_counts")}
        n_flat = Reshape (n, at_last)
        rows_shape = Shape (n_flat)
        item_low = GreaterOrEqual (items, zero)
        item_high = Less (items, n_items)
        item_ok = And (item_low, item_high)
        item_bad = Not (item_ok)
        {_rows_with("items_bad", "item_bad", "items_row")}
        as_many_weights = Equal (latents_flat, weights_flat)
        as_many_kinds = Equal (latents_flat, kinds_flat)
        as_many = And (as_many_weights, as_many_kinds)
        counts_bad = Not (as_many)
        n_low = GreaterOrEqual (n_flat, one)
        n_high = LessOrEqual (n_flat, most_n)
        n_ok = And (n_low, n_high)
        n_bad = Not (n_ok)
        n_knobs = Squeeze (latents_total)
        every_knob = Range (zero, n_knobs, one)
        latents_first = Gather (latents_offsets, latents_row)
        place = Sub (every_knob, latents_first)
        {_aligned("weights", "weights", "zero_f1")}
        {_aligned("kinds", "kinds", "at_0")}
        {_KNOBS}
        {_REFUSED}
        item_refused = Gather (is_refused, items_row)
        safe_items = Where (item_refused, zero, items)
        knob_refused = Gather (is_refused, latents_row)
        safe_latents = Where (knob_refused, zero, latents)
        safe_weights = Where (knob_refused, zero_f, own_weights)
        safe_kinds = Where (knob_refused, zero, own_kinds)
        safe_n = Where (is_refused, one, n_flat)
        largest_n = ReduceMax <keepdims = 0> (safe_n)
        }}""",
        opset,
        n_items=np.int64(n_items),
        n_latents=np.int64(n_latents),
        most_n=np.int64(MOST_N),
        four=np.int64(4),
        eight=np.int64(8),
        lowest=np.array([-(2**62)], dtype=np.int64),
    )
