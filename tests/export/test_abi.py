"""The hand-declared ABI of ONNX Runtime: against the official header where there is one, and where
the runtime says no."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cfsae_fast import export
from cfsae_fast.export import graph

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
ABI = Path(__file__).parent.parent.parent / "csrc" / "onnxruntime" / "abi.h"


def slots() -> dict[str, int]:
    body = re.search(r"enum class Slot : int \{(.*?)\};", ABI.read_text(), re.DOTALL).group(1)
    return {name: int(number) for name, number in re.findall(r"(\w+) = (\d+)", body)}


def callbacks() -> list[str]:
    body = re.search(r"struct CustomOp \{(.*?)\n\};", ABI.read_text(), re.DOTALL).group(1)
    return re.findall(r"\(\*(\w+)\)\(", body)


def test_slots_stand_in_order():
    numbers = list(slots().values())
    assert len(numbers) == 18 and numbers == sorted(set(numbers))


@pytest.mark.skipif("ORT_INCLUDE_DIR" not in os.environ, reason="ORT_INCLUDE_DIR is not set")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_slots_are_those_of_the_official_header(tmp_path):
    lines = [f'P("{name}", OrtApi, {name})' for name in slots()]
    lines += [f'P("{name}", OrtCustomOp, {name})' for name in callbacks()]
    source = tmp_path / "slots.c"
    source.write_text(
        "#include <onnxruntime_c_api.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        '#define P(n, t, m) printf("%s %zu\\n", n, offsetof(t, m) / sizeof(void*));\n'
        "int main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n"
    )
    command = ["cc", "-I", os.environ["ORT_INCLUDE_DIR"], source, "-o", tmp_path / "slots"]
    subprocess.run(command, check=True)
    said = subprocess.run([tmp_path / "slots"], check=True, capture_output=True, text=True).stdout
    found = dict(line.split() for line in said.splitlines())
    assert {name: int(found[name]) for name in slots()} == slots()
    order = [int(found[name]) for name in callbacks()]
    assert order == sorted(order)


def with_version(path, to, version):
    """A copy of a model whose TopkEncode is of another version of ai.cfsae, or of none."""
    model = onnx.load(path)
    (node,) = [one for one in model.graph.node if one.op_type == "TopkEncode"]
    (held,) = [one for one in node.attribute if one.name == "version"]
    if version is None:
        node.attribute.remove(held)
    else:
        held.i = version
    onnx.save(model, to)
    return to


def test_a_library_of_another_version_refuses(exported, tmp_path):
    """It would compute something else; standard ops compute what the file says."""
    recommender, path = exported.model("elsa", "topk", "residual")
    other = with_version(path, tmp_path / "m.onnx", 2)
    with pytest.raises(Exception, match="must hold nodes of version 1 of ai.cfsae, got 2; take"):
        export.open_session(other, verify=False)
    plain = export.open_session(other, custom_ops=False, verify=False)
    assert plain.run(["ids"], export.feeds(recommender, [["i1"]]))[0].shape == (1, 10)


def test_a_node_without_a_version_is_of_the_first(exported, tmp_path):
    recommender, path = exported.model("elsa", "topk", "residual")
    session = export.open_session(with_version(path, tmp_path / "m.onnx", None), verify=False)
    assert session.run(["ids"], export.feeds(recommender, [["i1"]]))[0].shape == (1, 10)


def test_both_sides_know_one_version():
    (held,) = re.findall(r"kVersion = (\d+);", ABI.with_name("declare.h").read_text())
    assert int(held) == graph.DOMAIN_VERSION


@pytest.mark.parametrize("attribute", ["k", "standardize", "threshold"])
def test_a_node_without_its_attribute_is_refused(exported, tmp_path, attribute):
    """The runtime answers with a status, which the library must release."""
    _, path = exported.model("elsa", "topk", "residual")
    model = onnx.load(path)
    (node,) = [one for one in model.graph.node if one.op_type == "TopkEncode"]
    kept = [one for one in node.attribute if one.name != attribute]
    del node.attribute[:]
    node.attribute.extend(kept)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(Exception, match=attribute):
        export.open_session(tmp_path / "m.onnx", verify=False)


def test_weights_of_another_shape_are_refused(exported, tmp_path):
    recommender, path = exported.model("elsa", "topk", "residual")
    model = onnx.load(path)
    (old,) = [one for one in model.graph.initializer if one.name == "encoder_bias"]
    short = onnx.numpy_helper.to_array(old)[:5]
    old.CopyFrom(onnx.numpy_helper.from_array(short, "encoder_bias"))
    onnx.save(model, tmp_path / "m.onnx")
    session = export.open_session(tmp_path / "m.onnx", verify=False)
    with pytest.raises(Exception, match=r"bias must have shape \(96,\), got \(5,\)"):
        session.run(None, export.feeds(recommender, [["i1"]]))


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_one_symbol_leaves_the_library():
    """Also where the library holds CUDA sources, which have a visibility of their own."""
    command = ["nm", "--dynamic", "--defined-only", export.custom_ops_path()]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [line.split()[1:] for line in said.splitlines()] == [["T", "RegisterCustomOps"]]
