"""`cfsae export` writes a checked file, and says what is wrong."""

import json

import pytest

from cfsae_fast.cli import main
from cfsae_fast.recommender import SteerableRecommender
from tests.export.networks import make_fitted

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    return SteerableRecommender.from_fitted(make_fitted()).save(folder)


def test_export_is_checked_both_ways(saved, tmp_path, capsys):
    target = tmp_path / "out.onnx"
    assert main(["export", str(saved), "--onnx", str(target), "--check", "32", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["parity"]) == {"plain", "custom"}
    assert all(one["holds"] and one["requests"] == 32 for one in said["parity"].values())
    assert target.exists() and target.with_name("out.onnx.json").exists()


def test_mistakes_are_explained(saved, tmp_path, capsys):
    assert main(["export", str(saved), "--onnx", str(tmp_path / "o"), "--opset", "3"]) == 1
    assert "opset must be in [18, 21]" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--onnx", str(tmp_path / "o")]) == 1


def test_triton_and_precision(saved, tmp_path, capsys):
    repository, target = tmp_path / "repository", tmp_path / "m.onnx"
    options = ["--triton", str(repository), "--name", "films", "--folded", "--mode", "reconstruct"]
    assert main(["export", str(saved), *options]) == 0
    names = {one.name for one in (repository / "films" / "1").iterdir()}
    assert names == {"model.onnx", "model.onnx.data", "model.onnx.json", "libcfsae_ort.so"}
    capsys.readouterr()
    options = ["--onnx", str(target), "--precision", "int8", "--check", "32", "--json"]
    assert main(["export", str(saved), *options]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["loss"]["users"] == 1 and said["parity"]["plain"]["holds"]
    assert "int8: nDCG@20 of 1 stored users" in captured.err


def test_nothing_to_write_is_a_wrong_command_line(saved, capsys):
    assert main(["export", str(saved)]) == 2
    assert "--onnx FILE or --triton DIR must be given" in capsys.readouterr().err
