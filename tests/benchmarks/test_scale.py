"""Memory is what docs/memory.md says, and the program tells it."""

import json

import pytest

from benchmarks import scale
from benchmarks.problems import Sizes


@pytest.mark.parametrize("folded", [False, True])
def test_serving_takes_what_the_formula_says(folded, tmp_path):
    sizes = Sizes(20_000, 64, 1024, 8) if folded else Sizes(120_000, 128, 512, 8)
    scale.child("build", str(tmp_path / "m"), sizes, folded)
    found = scale.child("serve", str(tmp_path / "m"), sizes, folded)
    formula = scale.serving_bytes(sizes, folded=folded)
    idle_libraries = 12e6  # what the first request loads, whatever the model
    assert 0.8 * formula < found["bytes"] < 1.1 * formula + idle_libraries
    assert found["p50_ms"] > 0


def test_streamed_users_do_not_add_up(tmp_path):
    sizes = Sizes(500, 16, 64, 4)
    scale.child("build", str(tmp_path / "m"), sizes, False)
    few, many = (
        scale.child("stream", str(tmp_path / "m"), n * scale.BLOCK)["bytes"] for n in (3, 9)
    )
    assert many < few + 4e6


def test_the_childs_words_are_checked(tmp_path):
    with pytest.raises(RuntimeError, match="serve .* must end well"):
        scale.child("serve", str(tmp_path / "nothing"), Sizes(10, 4, 8, 2), False)


def test_rows_hold_own_and_formula(monkeypatch, tmp_path):
    answers = {"bytes": 2e6, "p50_ms": 1.0, "fold_s": 0.1, "fit_s": 3.0, "formula": 1e6}
    answers |= {"seconds": 1.0}
    monkeypatch.setattr(scale, "child", lambda *given: answers)
    scale.main(["--quick", "--json", str(tmp_path / "scale.json")])
    rows = json.loads((tmp_path / "scale.json").read_text())["rows"]
    fit = [row for row in rows if row["metric"] == "rss_mb" and "ELSA" in row["case"]]
    assert [row["ratio"] for row in fit] == [0.5]
