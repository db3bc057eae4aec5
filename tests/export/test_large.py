"""Weights above 2 GB, where a protobuf message ends: one matrix is larger than that, others stand
behind it in the file. `make large` runs it (CFSAE_LARGE=1); docs/onnx.md says what that takes.
"""

import os
import resource
import sys
import time

import numpy as np
import pytest

from benchmarks.problems import Sizes, make_fitted
from cfsae_fast import export
from cfsae_fast.errors import ModelFormatError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("CFSAE_LARGE" not in os.environ, reason="CFSAE_LARGE is not set"),
]
TWO_GB = 1 << 31


@pytest.fixture(scope="module")
def fitted():
    return make_fitted(Sizes(600_000, 1024, 512, 32))


@pytest.fixture(scope="module", params=[False, True], ids=["dense", "folded"])
def path(request, fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    yield export.to_onnx(fitted, folder / "m.onnx", mode="reconstruct", folded=request.param)
    (folder / "m.onnx.data").unlink()


def say(words: str, since: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    sys.stdout.write(f"\n{words}: {time.monotonic() - since:.0f} s, peak {peak:.1f} GiB so far\n")


def test_answers_are_python_s(fitted, path, custom_ops, capsys):
    start = time.monotonic()
    assert path.stat().st_size < 1 << 20
    assert path.with_name("m.onnx.data").stat().st_size > TWO_GB
    model = onnx.load(path, load_external_data=False)
    places = [{one.key: one.value for one in x.external_data} for x in model.graph.initializer]
    assert max(int(place.get("offset", 0)) for place in places) > TWO_GB
    assert max(int(place.get("length", 0)) for place in places) > TWO_GB
    found = export.check_parity(fitted, path, requests=72, custom_ops=custom_ops)
    assert found.holds, found
    with capsys.disabled():
        say(f"{os.environ['PYTEST_CURRENT_TEST']} {found}", start)


def test_a_file_cut_behind_2_gb_is_refused(path):
    """Before it is mapped: reading pages that are not there would kill the process."""
    data = path.with_name("m.onnx.data")
    size = data.stat().st_size
    os.truncate(data, size - 1)
    with pytest.raises(ModelFormatError, match="not what was exported"):
        export.open_session(path, verify=False)
    os.truncate(data, size)


def test_a_graph_cannot_hold_them(fitted, tmp_path):
    with pytest.raises(ValueError, match="external must be True or None for 2,4"):
        export.to_onnx(fitted, tmp_path / "m.onnx", external=False)
    assert not list(tmp_path.iterdir())


def test_fewer_bits_fit_the_graph_again(fitted, tmp_path):
    """int8: a quarter of the bytes, in one file of less than 2 GB."""
    path = export.to_onnx(fitted, tmp_path / "m.onnx", precision="int8", external=False)
    assert TWO_GB // 4 < path.stat().st_size < TWO_GB
    asked = export.feeds(fitted, [[1, 2, 3]], n=5)
    ids = export.open_session(path).run(["ids"], asked)[0]
    assert ids.shape == (1, 5) and np.unique(ids).size == 5 and ids.min() >= 0
