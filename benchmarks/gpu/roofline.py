"""What the kernels should cost, by arithmetic over data sheets: the model of docs/gpu-roofline.md.

    python -m benchmarks.gpu.roofline        # prints that page's tables

time = max(bytes from memory / (0.8 x its bandwidth), bytes from L2 / (0.7 x its bandwidth),
operations / (0.6 x peak), dependent loads x 0.8 us) + 2.5 us for each launch.
"""

from __future__ import annotations

from typing import NamedTuple

FLOAT = 4
LOAD, LAUNCH = 0.8, 2.5  # microseconds
TILE_QUERIES, TILE_ROWS, FEW = 64, 128, 16  # csrc/cuda/top_scan.cu
IN_FLIGHT = 18 << 10  # bytes that a block of the scan has asked for and not yet got
WARP, FOLDED_WARPS = 32, 2112  # csrc/cuda/folded.cu
ENTRY = 46  # bytes moved a sorted entry: keys, order, rows, weights, twice where passes are two


class Card(NamedTuple):
    """TB/s, MB, TFLOP/s (dense); L2 bandwidths are assumed."""

    memory: float
    l2: float
    l2_size: int
    fp32: float
    tf32: float
    bf16: float
    sms: int


CARDS = {
    "A100": Card(2.04, 5.0, 40, 19.5, 156, 312, 108),
    "H100": Card(3.35, 6.5, 50, 67, 495, 990, 132),
    "B200": Card(8.0, 12.0, 126, 80, 1100, 2250, 148),
    "RTX 4090": Card(1.01, 5.0, 72, 82.6, 82.6, 165, 128),
}


class Shape(NamedTuple):
    """B rows, I items, d, L latents, k kept, histories of h items, N recommended, knobs a user."""

    batch: int
    items: int = 40_857
    d: int = 1024
    latents: int = 8192
    k: int = 32
    history: int = 75
    n: int = 20
    knobs: int = 3


class Cost(NamedTuple):
    """Bytes from memory and from L2, operations, launches, dependent loads one after another."""

    memory: float
    l2: float = 0.0
    operations: float = 0.0
    launches: int = 1
    loads: int = 0
    unit: str = "fp32"  # what multiplies
    blocks: int = 0  # of a scan that few queries starve; 0: enough


class Prediction(NamedTuple):
    microseconds: float
    bottleneck: str


def costs(s: Shape) -> dict[str, Cost]:
    """What every op moves and multiplies."""
    row = s.d * FLOAT
    x, table, atoms = s.batch * row, s.items * row, s.latents * row
    entries, kept = s.batch * s.history, s.batch * s.k
    read, gathered = entries * row, kept * row
    turned = s.batch * (s.k + s.knobs) * row
    if_small = min(atoms, gathered)
    return {
        "encode_rows": Cost(read + x, loads=-(-s.history // 4)),
        "encode_rows backward": Cost(table + read + x + ENTRY * entries, launches=10),
        **_scans("topk_encode", s, s.latents, s.k, extra=5 * x, launches=5),
        "topk_encode backward": Cost(2 * gathered + atoms + 6 * x, launches=15),
        "sparse_decode": Cost(if_small + x, gathered, loads=8),
        "sparse_decode backward": Cost(atoms + if_small + 2 * x, 2 * gathered, launches=14),
        "steer": Cost(16.0 * kept, loads=9),
        "steer_decode": Cost(min(atoms, turned) + 2 * x, turned, loads=19),
        **_scans("recommend", s, s.items, s.n, extra=0, launches=3),
        "folded_topk_encode": _folded(s, s.history, s.items, s.latents, s.k, launches=10),
        "folded_recommend": _folded(s, s.k, s.latents, s.items, s.n, launches=8),
        "folded_scores": Cost(
            min(s.latents, kept) * s.items + s.batch * s.items * FLOAT,
            kept * s.items,
            loads=-(-s.k // 4) + 2 * -(-s.k // WARP),
        ),
        "adam": Cost(2 * s.latents * s.d * 28, launches=2),
    }


def _scans(
    op: str, s: Shape, n_rows: int, kept: int, *, extra: float, launches: int
) -> dict[str, Cost]:
    """The precisions of a scan over `n_rows` rows."""
    row, few = s.d * FLOAT, s.batch <= FEW
    across = FEW if few else TILE_QUERIES
    tiles = -(-s.batch // across) * n_rows / TILE_ROWS
    l2 = n_rows * row if few else tiles * (across + TILE_ROWS) * row
    operations = 2.0 * s.batch * n_rows * s.d
    rescored = s.batch * max(2 * kept, kept + 32) * row
    plain = Cost(
        n_rows * row + extra, l2, operations, launches,
        blocks=-(-n_rows // TILE_ROWS) if few else 0,
    )  # fmt: skip
    tensor = plain._replace(unit="tf32")
    exact = tensor._replace(
        memory=2 * n_rows * row + extra, l2=l2 + rescored, launches=launches + 5
    )
    if few:  # bound by reading the rows once: every precision takes the fp32 kernel
        return {f"{op} fp32": plain}
    copied = (n_rows + s.batch) * row  # read, written and read again at half the size
    half = tensor._replace(memory=2 * copied + extra, l2=l2 / 2, launches=launches + 2, unit="bf16")
    return {
        f"{op} exact": exact, f"{op} tf32": tensor, f"{op} bf16": half, f"{op} fp32": plain,
    }  # fmt: skip


def _folded(
    s: Shape, entries: int, n_rows: int, n_columns: int, kept: int, *, launches: int
) -> Cost:
    """Two passes over `entries` rows of an int8 table (n_rows, n_columns) for every row of B; then
    a row of the dense matrix for each survivor, taken to be twice what is kept."""
    chunks = -(-n_columns // (4 * WARP))
    splits = min(chunks, -(-FOLDED_WARPS // s.batch))
    of_chunk = -(-entries // 4) + 2 * -(-entries // WARP)  # four rows at a time; ids and weights
    dense = s.batch * 2 * kept * s.d * FLOAT
    read = s.batch * entries * n_columns
    return Cost(
        2 * min(n_rows * n_columns, read) + dense, 2 * read, 2.0 * 2 * read, launches,
        loads=2 * -(-chunks // splits) * of_chunk + -(-s.d // (4 * WARP)),
    )  # fmt: skip


def predict(cost: Cost, card: Card) -> Prediction:
    """The time of an op on a card, and the term that decides it."""
    peak = getattr(card, cost.unit)
    terms = {
        "HBM": cost.memory / (0.8 * card.memory * 1e6),
        "L2": cost.l2 / (0.7 * card.l2 * 1e6),
        cost.unit: cost.operations / (0.6 * peak * 1e6),
        "latency": LOAD * cost.loads,
    }
    if cost.blocks:
        resident = min(cost.blocks, 2 * card.sms) * IN_FLIGHT
        terms["reads in flight"] = LOAD * cost.memory / resident
    name, most = max(terms.items(), key=lambda term: term[1])
    launches = LAUNCH * cost.launches
    return Prediction(most + launches, "launch" if launches > most else name)


def closest_card(name: str) -> str | None:
    """The card of the table that a device's name speaks of."""
    return next((card for card in CARDS if card.split()[-1] in name), None)


def tables(batches: tuple[int, ...] = (1, 512, 1024)) -> str:
    """The tables of docs/gpu-roofline.md."""
    heads = ["kernel", "from memory", "from L2", "operations", "launches", *CARDS]
    lines = []
    for batch in batches:
        lines += [f"## B = {batch}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for name, cost in costs(Shape(batch)).items():
            cells = [f"{cost.memory / 1e6:.1f} MB", f"{cost.l2 / 1e6:.1f} MB" if cost.l2 else "-",
                     f"{cost.operations / 1e9:.2f} G" if cost.operations else "-",
                     str(cost.launches)]  # fmt: skip
            cells += [_text(predict(cost, card)) for card in CARDS.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _text(prediction: Prediction) -> str:
    time = prediction.microseconds
    shown = f"{time:.0f} us" if time < 1000 else f"{time / 1000:.2f} ms"
    return f"{shown}, {prediction.bottleneck}"


if __name__ == "__main__":
    print(tables())
