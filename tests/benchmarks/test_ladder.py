"""Rungs that lost still run, and still give the right answer."""

import json

import pytest

from benchmarks.ladder import elsa_step, encode
from cfsae_fast import ops

TINY = ["--batch", "20", "--d", "16"]


@pytest.mark.parametrize(
    "program, shape, count",
    [
        (encode, ["--latents", "90", "--k", "4"], 1 + len(ops.build_info()["isa"])),
        (elsa_step, ["--items", "50", "--history", "5"], 3),
    ],
)
def test_every_rung_is_timed(program, shape, count, tmp_path):
    program.main(["--quick", "--json", str(tmp_path / "rows.json"), *TINY, *shape])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(rows) == count and all(row["value"] > 0 for row in rows)
