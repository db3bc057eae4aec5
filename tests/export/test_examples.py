"""The example clients give the library's answers."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cfsae_fast import export

onnxruntime = pytest.importorskip("onnxruntime")
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


@pytest.mark.parametrize("word", ["i90", "film noire=0.3"])
def test_python_client_says_what_it_does_not_know(exported, word):
    _, path = exported.model("elsa", "topk", "residual")
    command = [sys.executable, EXAMPLES / "ask.py", path, "i3", word]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f"{path}.json does not know {word.split('=')[0]!r}\n"


def test_python_client_is_short():
    """What the page of an export says: numpy, onnxruntime, 30 lines of code."""
    tree = ast.parse((EXAMPLES / "ask.py").read_text())
    names = {
        alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    }
    assert names == {"json", "sys", "numpy", "onnxruntime"}
    assert sum(node.end_lineno - node.lineno + 1 for node in tree.body[1:]) <= 31


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """ask.cpp, built against the headers of ORT_INCLUDE_DIR and the installed runtime's library."""
    if "ORT_INCLUDE_DIR" not in os.environ:
        pytest.skip("ORT_INCLUDE_DIR is not set")
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*")
    built = tmp_path_factory.mktemp("client") / "ask"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{os.environ['ORT_INCLUDE_DIR']}"]
    built.with_name("libonnxruntime.so.1").symlink_to(library)  # its SONAME; wheels lack the link
    at_run_time = f"-Wl,-rpath,{built.parent}"
    subprocess.run(
        [compiler, *flags, EXAMPLES / "ask.cpp", "-o", built, library, at_run_time], check=True
    )
    return built


def test_cpp_client(exported, program, custom_ops):
    recommender, path = exported.model("elsa", "topk", "residual")
    library = export.custom_ops_path() if custom_ops else "-"
    command = [program, path, library, "5", "3", "8", "3=0.225", "10=0.075"]  # film noir, 0.3
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ids = [f"i{line.split()[1]}" for line in done.stdout.splitlines()]
    want = recommender.recommend(histories=["i3", "i8"], n=5, steer={"film noir": 0.3})
    assert ids == want.ids.tolist()


def test_cpp_client_says_what_is_wrong(exported, program):
    _, path = exported.model("elsa", "topk", "residual")
    command = [program, path, export.custom_ops_path(), "5", "90"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "items must lie in [0, 90), got 90" in done.stderr
