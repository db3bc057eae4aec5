"""`make gpu` without a GPU: a dry run on the emulated device, and the model of its roofline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "cuda_on_cpu"))

import building  # noqa: E402

from benchmarks.gpu import calls, checks, roofline  # noqa: E402
from benchmarks.gpu.__main__ import main  # noqa: E402
from benchmarks.gpu.device import Device, poisoned  # noqa: E402
from benchmarks.gpu.inputs import draw  # noqa: E402
from cfsae_fast import ops  # noqa: E402

LITTLE = roofline.Shape(17, 150, 12, 140, 4, 5, 6, 3)  # B above what few queries are


@pytest.fixture(scope="module")
def library() -> Path:
    if not building.has_compiler():
        pytest.skip("no C++ compiler")
    return Path(building.load_module().__file__)


def test_a_dry_run_checks_and_times_every_op(library, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(roofline, "Shape", lambda *sizes: LITTLE)
    assert (
        main(["--emulated", str(library), "--json", str(tmp_path / "gpu.json"), "--seed", "5"]) == 0
    )
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert told["bench"] == "gpu"
    timed = {row["case"].split(" B=")[0] for row in told["rows"]}
    assert timed == set(roofline.costs(LITTLE))
    assert all(row["answer_checked"] and row["value"] > 0 for row in told["rows"])
    assert any(row["peer"] == "eager" for row in told["rows"])
    assert "emulated, seed 5" in capsys.readouterr().out


def test_peers_give_the_answers_they_are_timed_for(library):
    device = Device(library)
    given = draw(LITTLE, device.place, 3)
    with device.answering(), torch.no_grad():
        found = {op.name: op for op in calls.all_of(given, LITTLE, compiled=False)}
        for name in ("encode_rows", "sparse_decode", "steer_decode"):
            torch.testing.assert_close(found[name].ours(), found[name].peers["eager"](),
                                       rtol=1e-4, atol=1e-4)  # fmt: skip
        code = found["topk_encode exact"].ours().code
        values, latents = found["topk_encode exact"].peers["eager"]()
        torch.testing.assert_close(code.values, values, rtol=1e-4, atol=1e-4)
        assert torch.equal(code.indices.long(), latents)
        top = found["recommend fp32"].ours()
        scores, ids = found["recommend fp32"].peers["eager"]()
        torch.testing.assert_close(top.scores, scores, rtol=1e-4, atol=1e-4)
        assert torch.equal(top.ids.long(), ids)


def test_a_wrong_answer_ends_it_untimed(library, monkeypatch, capsys):
    right = ops.sparse_decode
    monkeypatch.setattr(ops, "sparse_decode", lambda *given: right(*given) * 1.001)
    monkeypatch.setattr(roofline, "Shape", lambda *sizes: LITTLE)
    assert main(["--emulated", str(library), "--seed", "5"]) == 1
    said = capsys.readouterr().out
    assert "WRONG (seed 5)" in said
    assert "sparse_decode: off by" in said
    assert "timed" not in said


def test_it_needs_torch_numpy_and_pybind11_alone():
    script = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("safetensors", "scipy", "polars", "rich", "click", "pytest"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
import benchmarks.gpu.__main__, benchmarks.record
from benchmarks.gpu import building, calls, checks, inputs
import torch
inputs.draw(inputs.Shape(2, 20, 4, 12, 3, 4, 3, 3), torch.device("cpu"), 1)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_results_start_poisoned():
    with poisoned():
        assert torch.empty(5).isnan().all()
        assert (torch.empty(5, dtype=torch.uint8) == 255).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_errors_count_nan_shape_and_ties():
    assert checks.off(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    assert checks.off(torch.zeros(2), torch.zeros(3)) == float("inf")
    padding = torch.tensor([-torch.inf])
    assert checks.off(padding, padding.double()) == 0
    assert checks.failed({"one": float("nan"), "two": 1e-9}) == ["one: off by nan"]


def test_the_page_shows_what_the_model_says():
    page = (ROOT / "docs" / "gpu-roofline.md").read_text()
    assert roofline.tables().strip() in page
    assert roofline.closest_card("NVIDIA H100 80GB HBM3") == "H100"
    assert roofline.closest_card("NVIDIA GeForce RTX 4090") == "RTX 4090"
    assert roofline.closest_card("NVIDIA T4") is None


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    assert main([]) == 1
    assert "a CUDA device must be present" in capsys.readouterr().out
