"""The wheel: built, installed beside numpy and safetensors alone, it recommends the same."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.recommender.conftest import small_model

ROOT = Path(__file__).parent.parent

SERVE = """
import json, sys
import cfsae_fast
assert "/site-packages/" in cfsae_fast.__file__, cfsae_fast.__file__
model = cfsae_fast.SteerableRecommender.load(sys.argv[1])
steer = json.loads(sys.argv[2])
found = [model.recommend([1, 2, 3], n=5, steer=steer, mode=mode) for mode in sys.argv[3:]]
found.append(model.recommend(histories=[[1, 2, 3]], n=5))
heavy = [name for name in ("torch", "scipy", "polars", "click") if name in sys.modules]
print(json.dumps([heavy, [one.ids.tolist() for one in found],
                  [one.scores.tolist() for one in found]]))
"""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_installed_wheel_recommends_without_torch(tmp_path):
    model = small_model("elsa", "topk")
    saved = model.save(tmp_path / "model")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", str(tmp_path), str(ROOT))
    wheels = list(tmp_path.glob("cfsae_fast-*.whl"))
    assert len(wheels) == 1 and "none-any" not in wheels[0].name
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", str(wheels[0]))
    installed = json.loads(run(str(python), "-m", "pip", "list", "--format", "json"))
    names = {one["name"].lower() for one in installed} - {"pip", "setuptools", "wheel"}
    assert names == {"cfsae-fast", "numpy", "safetensors"}

    steer, modes = {model.concepts()[0].name: 0.4}, ("residual", "reconstruct")
    out = run(str(python), "-c", SERVE, str(saved), json.dumps(steer), *modes, cwd=tmp_path)
    heavy, ids, scores = json.loads(out)
    assert heavy == []
    want = [model.recommend([1, 2, 3], n=5, steer=steer, mode=mode) for mode in modes]
    want.append(model.recommend(histories=[[1, 2, 3]], n=5))
    for mine, theirs, theirs_scores in zip(want, ids, scores, strict=True):
        assert mine.ids.tolist() == theirs
        np.testing.assert_allclose(mine.scores, theirs_scores, rtol=1e-6)


def test_readme_example_runs_as_written(tmp_path):
    text = (ROOT / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert 15 <= len([line for line in code.splitlines() if line.strip()]) <= 22
    out = run(sys.executable, "-c", code, cwd=tmp_path)
    assert out.count("Recommendations(") == 3 and (tmp_path / "runs/readme").is_dir()
