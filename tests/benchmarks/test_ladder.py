"""Rungs that lost still run, and still give the right answer."""

import json
from collections import Counter

import pytest

from benchmarks.ladder import elsa_step, encode, multvae
from cfsae_fast import ops
from cfsae_fast.models import cosine_head

TINY = ["--batch", "20", "--d", "16"]


@pytest.mark.parametrize(
    "program, shape, count",
    [
        (encode, ["--latents", "90", "--k", "4"], 1 + len(ops.build_info()["isa"])),
        (elsa_step, ["--items", "50", "--history", "5"], 5),
    ],
)
def test_every_rung_is_timed(program, shape, count, tmp_path):
    program.main(["--quick", "--json", str(tmp_path / "rows.json"), *TINY, *shape])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(rows) == count and all(row["value"] > 0 for row in rows)


def test_a_folded_layer_answers_as_the_others(tmp_path):
    shape = ["--items", "90", "--d", "16", "--latents", "64", "--k", "4", "--threads", "1"]
    multvae.main(["--quick", "--json", str(tmp_path / "rows.json"), *shape])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    differ = {row["case"].split()[-1]: row["value"] for row in rows if "differ" in row["metric"]}
    assert set(differ) == {"numpy", "engine", "folded"} and not any(differ.values())
    assert sum(row["metric"] == "p50_ms" for row in rows) == 3


def counting(calls, name, plain):
    def counted(*given, **options):
        calls[name] += 1
        return plain(*given, **options)

    return counted


def test_elsas_rungs_are_different_ways(monkeypatch):
    """What a rung takes out of the model is really taken out."""
    calls, found = Counter(), {}
    counted = ("tile", "cosine_tile_", "int16_product_", "one_pool")
    owners = (cosine_head._Scores, cosine_head, cosine_head, elsa_step)
    for owner, name in zip(owners, counted, strict=True):
        monkeypatch.setattr(owner, name, counting(calls, name, getattr(owner, name)))
    for rung, way in elsa_step.rungs(50, 16, 20, 5).items():
        calls.clear()
        way()
        found[rung] = tuple(calls[name] for name in counted)
    assert found == {
        "torch passes": (1, 0, 0, 1),
        "engine passes, scores computed twice": (2, 2, 0, 1),
        "engine passes, scores kept": (1, 1, 0, 1),
        "int16, threads of its own": (1, 1, 3, 0),
        "int16, torch's threads": (1, 1, 3, 1),
    }
