"""What stands in the exported files, and which kernels run."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cfsae_fast import export
from cfsae_fast.export import files
from cfsae_fast.recommender import SteerableRecommender
from tests.export.networks import make_fitted

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def test_the_model_is_valid_and_carries_its_functions(exported):
    _, path = exported.model("multvae", "batchtopk", "residual")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    ours = {node.op_type for node in model.graph.node if node.domain == "ai.cfsae"}
    assert ours == {"EncodeRows", "TopkEncode", "SteerDecode", "Recommend"}
    assert {(one.domain, one.name) for one in model.functions} == {("ai.cfsae", x) for x in ours}
    assert all(node.domain == "" for one in model.functions for node in one.node)


def test_metadata_says_what_it_is(exported):
    recommender, path = exported.model("elsa", "topk", "reconstruct")
    meta = export.open_session(path).get_modelmeta().custom_metadata_map
    concepts = json.loads(meta["cfsae.concepts"])
    latents, weights = recommender.fitted.concepts.target("film noir")
    assert concepts["film noir"]["latents"] == latents.tolist()
    np.testing.assert_allclose(concepts["film noir"]["weights"], weights)
    assert (meta["cfsae.mode"], meta["cfsae.cfae"], meta["cfsae.sae"]) == (
        "reconstruct",
        "elsa",
        "topk",
    )
    assert len(meta["cfsae.weights_sha256"]) == 64


def test_manifest_holds_ids_and_checksums(exported):
    recommender, path = exported.model("elsa", "topk", "residual")
    manifest = export.read_manifest(path)
    assert manifest.item_ids == recommender.fitted.item_ids.values.tolist()
    assert manifest.titles is None and manifest.n_latents == 96
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest.files[path.name] == {"bytes": path.stat().st_size, "sha256": digest}


def test_elsa_stores_its_matrix_once(exported):
    _, path = exported.model("elsa", "topk", "residual")
    shapes = [tuple(one.dims) for one in onnx.load(path).graph.initializer]
    assert shapes.count((90, 16)) == 1


def test_large_weights_go_beside_the_graph(tmp_path, monkeypatch, custom_ops):
    monkeypatch.setattr(files, "LARGEST_INSIDE", 1 << 10)
    recommender = SteerableRecommender.from_fitted(make_fitted())
    path = export.to_onnx(recommender, tmp_path / "m.onnx")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data", "m.onnx.json"]
    assert export.check_parity(recommender, path, requests=32, custom_ops=custom_ops).holds
    data = tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:-8] + bytes(8))
    with pytest.raises(Exception, match="m.onnx.data is not what was exported"):
        export.open_session(path)


def test_short_weights_are_refused_before_they_are_mapped(tmp_path):
    path = export.to_onnx(make_fitted(), tmp_path / "m.onnx", external=True)
    data = tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(Exception, match="m.onnx.data is not what was exported"):
        export.open_session(path, verify=False)


def test_external_weights_on_request(tmp_path):
    path = export.to_onnx(make_fitted(), tmp_path / "m.onnx", external=True)
    assert (tmp_path / "m.onnx.data").stat().st_size > path.stat().st_size / 4
    export.to_onnx(make_fitted(), path, external=False)
    assert not (tmp_path / "m.onnx.data").exists()


ASK_AND_WAIT = """
import sys, numpy as np
from cfsae_fast import export
session = export.open_session(sys.argv[1], custom_ops=True)
session.run(None, {"items": np.array([1, 2]), "offsets": np.array([0, 2])})
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc/self/smaps")
def test_processes_share_the_weights(tmp_path):
    """Every page of the file that two processes hold is the same page of memory."""
    fitted = make_fitted(n_items=4000, d=64)
    options = {"external": True, "folded": True, "mode": "reconstruct"}
    path = export.to_onnx(fitted, tmp_path / "m.onnx", **options)
    command = [sys.executable, "-c", ASK_AND_WAIT, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        assert [one.stdout.readline() for one in running] == ["ready\n"] * 2
        held = [pages_of(one.pid, f"{path}.data") for one in running]
    finally:
        for one in running:
            one.communicate()
    for pages in held:  # kB, of 1.9 MB: what no request touched stays on disk
        assert pages["Shared_Clean"] + pages["Shared_Dirty"] > 500
        assert pages["Anonymous"] == 0  # no page was copied


def pages_of(pid: int, file: str) -> dict[str, int]:
    """kB of each kind that a process holds of a mapped file."""
    sums: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(file)
        elif inside and line.endswith(" kB"):
            name, count = line.removesuffix(" kB").split(":")
            sums[name] = sums.get(name, 0) + int(count)
    return sums


def test_a_second_export_leaves_no_stale_weights(tmp_path, monkeypatch):
    recommender = SteerableRecommender.from_fitted(make_fitted())
    with monkeypatch.context() as patched:
        patched.setattr(files, "LARGEST_INSIDE", 1 << 10)
        export.to_onnx(recommender, tmp_path / "m.onnx")
    export.to_onnx(recommender, tmp_path / "m.onnx")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["m.onnx", "m.onnx.json"]


def test_the_library_s_kernels_win_where_registered(exported, tmp_path):
    """The profile of a run names the nodes that ran: one of ours, or dozens of standard ops."""
    recommender, path = exported.model("elsa", "topk", "residual")
    ran = {}
    for custom_ops in (False, True):
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / f"profile-{custom_ops}")
        if custom_ops:
            options.register_custom_ops_library(str(export.custom_ops_path()))
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session.run(None, export.feeds(recommender, [["i1"]]))
        events = json.loads(Path(session.end_profiling()).read_text())
        ran[custom_ops] = {one["args"].get("op_name") for one in events if "args" in one}
    ours = {"EncodeRows", "TopkEncode", "SteerDecode", "Recommend"}
    assert ours <= ran[True] and not ran[True] & {"TopK", "Unique"}
    assert not ours & ran[False] and {"TopK", "Unique"} <= ran[False]


def test_several_threads_ask_one_session(exported):
    from concurrent.futures import ThreadPoolExecutor

    recommender, _ = exported.model("elsa", "topk", "residual")
    session = exported.session("elsa", "topk", "residual", True)
    asked = export.feeds(recommender, [["i1", "i7"]] * 40, steer="horror=0.4", n=20)
    want = session.run(None, asked)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: session.run(None, asked), range(24)):
            for one, other in zip(got, want, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("opset", files.OPSETS)
def test_every_opset_gives_the_same(tmp_path, opset):
    fitted = make_fitted()
    path = export.to_onnx(fitted, tmp_path / "m.onnx", opset=opset)
    assert export.check_parity(fitted, path, requests=32, custom_ops=False).holds
