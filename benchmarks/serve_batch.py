"""How many users a second, steered, in batches?

Mode reconstruct, which is the paper's; folded tables and the dense path against dense torch, the
same through torch.compile, and the exported graph of standard operators in ONNX Runtime.
"""

from __future__ import annotations

from benchmarks import record
from benchmarks.problems import FULL, QUICK
from benchmarks.requests import Paths, floors, sizes_of, with_shapes


def main(arguments: list[str] | None = None) -> None:
    parser = with_shapes(record.arguments("serve_batch", __doc__ or ""), FULL)
    parser.add_argument("--batch", type=int, default=512)
    chosen = parser.parse_args(arguments)
    sizes = sizes_of(chosen, FULL, QUICK)
    paths = Paths(sizes, compiled=not chosen.quick)
    rows = []
    for threads in chosen.threads:
        seconds = 3 if chosen.quick else 25
        rows += paths.measure(chosen.batch, threads, seconds=seconds, most=50)
        rows += floors(sizes, chosen.batch, threads)
    record.finish("serve_batch", rows, chosen.json)


if __name__ == "__main__":
    main()
