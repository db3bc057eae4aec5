"""How long from one user's history and knobs to the top 20?

Mode reconstruct, which is the paper's; folded tables and the dense path against dense torch, the
same through torch.compile, and the exported graph of standard operators in ONNX Runtime.
"""

from __future__ import annotations

from benchmarks import record
from benchmarks.problems import FULL, QUICK
from benchmarks.requests import Paths, floors, sizes_of, with_shapes


def main(arguments: list[str] | None = None) -> None:
    parser = with_shapes(record.arguments("serve_one_user", __doc__ or ""), FULL)
    chosen = parser.parse_args(arguments)
    sizes = sizes_of(chosen, FULL, QUICK)
    paths = Paths(sizes, compiled=not chosen.quick)
    rows = []
    for threads in chosen.threads:
        seconds = 3 if chosen.quick else 25
        rows += paths.measure(1, threads, seconds=seconds, most=1000)
        rows += floors(sizes, 1, threads)
    record.finish("serve_one_user", rows, chosen.json)


if __name__ == "__main__":
    main()
