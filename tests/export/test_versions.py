"""One file and one library, in the oldest and newest ONNX Runtime.

`make test` lays the older ones beside the environment (Makefile, BESIDE); the newest is what
the environment has.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cfsae_fast import export

runtime = pytest.importorskip("onnxruntime")
BESIDE = Path(sys.prefix) / "beside"
VERSIONS = ["1.20.1", "1.23.2", "installed"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("folded", [False, True], ids=["dense", "folded"])
@pytest.mark.parametrize("version", VERSIONS)
def test_answers_are_the_same(exported, tmp_path, version, folded, custom_ops, precision):
    place = BESIDE / f"onnxruntime=={version}"
    if version != "installed" and not place.is_dir():
        pytest.skip(f"onnxruntime {version} is not laid in {BESIDE}; make test does it")
    recommender, _ = exported.model("elsa", "topk", "reconstruct")
    options = {"mode": "reconstruct", "folded": folded, "precision": precision}
    path = export.to_onnx(recommender, tmp_path / "m.onnx", external=True, **options)
    asked = export.feeds(recommender, [["i1", "i7"], []], steer=["horror=0.4, -anime", None], n=7)
    ids, scores = export.open_session(path).run(["ids", "scores"], asked)
    inputs = {f"in.{name}": array for name, array in asked.items()}
    np.savez(tmp_path / "request.npz", ids=ids, scores=scores, **inputs)
    library = export.custom_ops_path() if custom_ops else "-"
    said = subprocess.run(
        [sys.executable, Path(__file__).with_name("ask_alone.py"), path, library, "request.npz"],
        env={**os.environ, "PYTHONPATH": str(place)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr[-3000:]
    assert said.stdout == (runtime.__version__ if version == "installed" else version)
