"""How long from one user's history and knobs to the top 20?

Mode reconstruct, which is the paper's; folded tables and the dense path against dense torch, the
same through torch.compile, and the exported graph of standard operators in ONNX Runtime.
"""

from __future__ import annotations

from benchmarks.requests import serve


def main(arguments: list[str] | None = None) -> None:
    serve("serve_one_user", __doc__ or "", 1, arguments)


if __name__ == "__main__":
    main()
