"""How many users a second, steered, in batches?

Mode reconstruct, which is the paper's; folded tables and the dense path against dense torch, the
same through torch.compile, and the exported graph of standard operators in ONNX Runtime.
"""

from __future__ import annotations

from benchmarks.requests import serve


def main(arguments: list[str] | None = None) -> None:
    serve("serve_batch", __doc__ or "", None, arguments)


if __name__ == "__main__":
    main()
