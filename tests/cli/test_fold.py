"""`cfsae fold` writes tables beside a model, and says why it does not."""

import json

from cfsae_fast.cli import main
from cfsae_fast.recommender import SteerableRecommender
from tests.export.networks import make_fitted


def test_tables_are_written_and_used(tmp_path, capsys):
    saved = SteerableRecommender.from_fitted(make_fitted()).save(tmp_path / "model")
    assert main(["fold", str(saved), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    tables = SteerableRecommender.load(saved).fitted.folded
    assert tables.nbytes == said["bytes"] and said["folded"] == ["encode", "decode"]
    assert main(["fold", str(saved)]) == 0  # again, over the mapped ones
    assert "encode and decode" in capsys.readouterr().out


def test_the_limit_is_kept(tmp_path, capsys):
    saved = SteerableRecommender.from_fitted(make_fitted()).save(tmp_path / "model")
    assert main(["fold", str(saved), "--limit-gb", "0"]) == 1
    assert "limit_bytes must be at least" in capsys.readouterr().err
    assert not (saved / "folded").exists()
