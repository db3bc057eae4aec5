"""The example clients give the library's answers."""

import subprocess
import sys
from pathlib import Path

import pytest

from cfsae_fast import export

pytest.importorskip("onnxruntime")
EXAMPLES = Path(export.__file__).parent / "examples"


def test_python_client_needs_no_library(exported):
    recommender, path = exported.model("elsa", "topk", "residual")
    code = (EXAMPLES / "ask.py").read_text()
    assert "cfsae_fast" not in code
    done = subprocess.run(
        [sys.executable, EXAMPLES / "ask.py", path, "i3", "i8", "film noir=0.3"],
        capture_output=True,
        text=True,
        check=True,
    )
    want = recommender.recommend(histories=["i3", "i8"], steer={"film noir": 0.3})
    assert [line.split()[1] for line in done.stdout.splitlines()] == want.ids.tolist()
