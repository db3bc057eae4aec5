"""The house stands as planned: arrows point down, serving stays light, files stay short."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cfsae_fast"

FLOORS = {
    "errors": 0, "_version": 0, "reference": 0,
    "ops": 1, "ids": 1, "config": 1, "metrics": 1, "io": 1,
    "data": 2, "inference": 2, "steering": 2, "concepts": 2,
    "models": 3,
    "training": 4,
    "recommender": 5, "sae": 5,
    "evaluation": 6, "serving": 6,
    "cli": 7,
    "__main__": 8,
}  # fmt: skip
ROOMS_ABOVE = {"export", "benchmarks", "tests"}
DOORS_TO_EXPORT = {"cli/export.py"}  # the only ones that may import it, inside a function
SHORT = {".py", ".cpp", ".cu", ".cuh", ".h"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Dotted names of every import in a file, those inside functions and TYPE_CHECKING included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    here = room_of(path)
    assert here in FLOORS, f"{here} has no floor: add it to FLOORS and to the map in the README"
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        assert top not in ROOMS_ABOVE, f"{path} imports the room {top}, which stands above it"
        if top == "cfsae_fast":
            there = rest.split(".")[0]
            if rest.split(".")[0] == "export":
                assert str(path.relative_to(PACKAGE)) in DOORS_TO_EXPORT, f"{path} imports export"
            elif there == "_C":
                assert here == "ops", f"{path}: only ops may touch the engine"
            elif there != here and there != "__version__":
                # reference reads the containers it documents: the one upward glance
                allowed = here == "reference" and rest.startswith("ops.containers")
                assert allowed or FLOORS[there] < FLOORS[here], f"{path} imports {name} upward"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstring_names_the_floor(path):
    floor = re.match(r"Floor (\d):", ast.get_docstring(ast.parse(path.read_text())) or "")
    here = room_of(path)
    assert here in ("_version", "__main__") or floor and int(floor.group(1)) == FLOORS[here]


@pytest.mark.parametrize("door", sorted(DOORS_TO_EXPORT))
def test_export_is_imported_inside_functions_only(door):
    tree = ast.parse((PACKAGE / door).read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top for alias in node.names}
    assert "export" not in names and not any("export" in ast.unparse(node) for node in top)


def test_every_folder_of_the_house_is_on_the_map():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert rooms | files <= set(FLOORS)


def test_engine_knows_neither_python_nor_torch():
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix in SHORT and "python" not in path.relative_to(ROOT / "csrc").parts:
            for line in path.read_text().splitlines():
                if line.startswith("#include"):
                    assert not any(word in line for word in ("pybind11", "Python.h", "torch/")), (
                        f"{path}: {line}"
                    )


def test_files_have_one_subject():
    folders = ["csrc", "cfsae_fast", "benchmarks", "tests", "export"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    long = {
        str(path.relative_to(ROOT)): count
        for path in paths
        if path.suffix in SHORT and (count := len(path.read_text().splitlines())) > 400
    }
    assert not long, f"files over 400 lines have two subjects: {long}"


def test_no_room_without_a_subject():
    banned = {"utils", "helpers", "common", "base", "misc"}
    names = {path.stem for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert not names & banned


def test_no_pickle():
    for path in modules():
        names = imports_of(path)
        assert not {"pickle", "joblib", "dill", "shelve", "marshal"} & names, path
        calls = re.findall(r"\b(?:torch\.(?:load|save)|allow_pickle\s*=\s*True)", path.read_text())
        assert not calls, f"{path} touches a pickle: {calls}"


def test_serving_imports_numpy_and_safetensors_alone():
    heavy = ["torch", "scipy", "polars", "rich", "click", "pandas", "onnx", "sklearn"]
    script = (
        "import sys, cfsae_fast, cfsae_fast.recommender, cfsae_fast.inference, cfsae_fast.ops\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_two_test_files_share_a_name():
    """pytest imports those of folders that are no packages by their bare names."""
    plain = [
        one.name
        for one in (ROOT / "tests").rglob("test_*.py")
        if not (one.parent / "__init__.py").exists()
    ]
    assert sorted(plain) == sorted(set(plain))
