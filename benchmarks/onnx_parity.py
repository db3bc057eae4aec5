"""Does an exported model answer as the library? Trained models on real ratings, every combination.

ml-latest-small (or --data), ELSA, MultVAE and MultDAE under TopK, BatchTopK and Basic SAEs, trained
briefly; both modes, dense and folded where it folds, standard ops and custom ops, --requests random
requests each; and what fewer bits cost in nDCG@20. No peers: the library is the other side.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record
from cfsae_fast import export
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.data import Dataset, load
from cfsae_fast.recommender import SteerableRecommender

CFAES, SAES = ("elsa", "multvae", "multdae"), ("topk", "batchtopk", "basic")
MODES = ("residual", "reconstruct")


def train(dataset: Dataset, cfae: str, sae: str, epochs: int) -> SteerableRecommender:
    model = SteerableRecommender(
        CFAEConfig(model=cfae, d=64),
        SAEConfig(kind=sae, k=16, n_latents=512),
        cfae_training=TrainConfig(epochs=epochs),
        sae_training=TrainConfig(epochs=epochs, steps_per_epoch=60, monitor="loss"),
    )
    return model.fit(dataset.interactions, dataset.tags, titles=dataset.titles)


def compare(
    model: SteerableRecommender, case: str, folder: Path, requests: int
) -> list[dict[str, Any]]:
    """Rows of every graph of one model."""
    rows = []
    for mode, folded in itertools.product(MODES, (False, True)):
        path = folder / "m.onnx"
        try:
            export.to_onnx(model, path, mode=mode, folded=folded)
        except ValueError:
            if not folded:
                raise
            continue  # nothing of this model folds; the words are tested
        for custom_ops in (False, True):
            found = export.check_parity(model, path, requests=requests, custom_ops=custom_ops)
            graph = "custom" if custom_ops else "plain"
            words = f"{case} {mode} graph={graph} {'folded' if folded else 'dense'}"
            for metric in ("different", "error"):
                rows.append(record.row(words, metric, getattr(found, metric), answer_checked=True))
    return rows


def losses(model: SteerableRecommender, case: str, folder: Path) -> list[dict[str, Any]]:
    """nDCG@20 that fewer bits lose, over stored users' hidden items."""
    rows = []
    for precision in ("fp16", "bf16", "int8"):
        path = export.to_onnx(model, folder / "p.onnx", precision=precision, mode="reconstruct")
        found = export.measure_loss(model, path)
        rows.append(record.row(f"{case} reconstruct {precision}", "ndcg_lost", found.lost))
    return rows


def main() -> None:
    parser = record.arguments("onnx_parity", __doc__ or "")
    parser.add_argument("--data", default="ml-latest-small")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="save the models here")
    chosen = parser.parse_args()
    dataset, rows = load(chosen.data), []
    pairs = [("elsa", "topk")] if chosen.quick else itertools.product(CFAES, SAES)
    for cfae, sae in pairs:
        model = train(dataset, cfae, sae, epochs=2 if chosen.quick else 6)
        case = f"{chosen.data} {cfae} {sae}"
        if chosen.keep:
            model.save(chosen.keep / f"{cfae}-{sae}")
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(model, case, Path(folder), 100 if chosen.quick else chosen.requests)
            if sae == "topk":
                rows += losses(model, case, Path(folder))
    record.finish("onnx_parity", rows, chosen.json)


if __name__ == "__main__":
    main()
