"""The command line as a newcomer meets it: every command runs, every mistake is explained."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cfsae_fast import toward
from cfsae_fast.cli import main
from cfsae_fast.recommender import SteerableRecommender

SOURCE = "generated:users=300,items=120,concepts=5,seed=2"
SMALL = ["--set", "cfae.d=16", "--set", "sae.k=6", "--set", "sae.n_latents=512"]
SHORT = ["--set", "cfae_training.epochs=4", "--set", "cfae_training.lr=0.01"]
SHORT += ["--set", "sae_training.epochs=2", "--set", "sae_training.steps_per_epoch=40"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", SOURCE, "--out", str(folder), *SMALL, *SHORT]) == 0
    return folder


@pytest.fixture
def ask(capsys):
    """Run a command that must succeed, and give what it printed as JSON."""

    def run(*arguments):
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def fails(capsys, *arguments):
    code = main([*map(str, arguments)])
    return code, capsys.readouterr().err


def test_train_leaves_everything(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert 0 < metrics["base"]["ndcg"]["mean"] <= 1
    assert json.loads((trained / "settings.json").read_text())["cfae"]["d"] == 16
    for stage in ("cfae", "sae"):
        lines = (trained / stage / "metrics.jsonl").read_text().splitlines()
        assert all("loss" in json.loads(line) for line in lines) and lines
    assert len(SteerableRecommender.load(trained / "model").fitted.user_ids) > 250


def test_recommend_equals_the_library(trained, ask):
    model = SteerableRecommender.load(trained / "model")
    user = model.fitted.user_ids[0]
    concept = model.concepts()[0].name
    found = ask(
        "recommend", trained / "model", "--user", user, "-n", 4, "--steer", f"{concept}=0.4"
    )
    want = model.recommend(user, n=4, steer={concept: 0.4})
    assert [one["item"] for one in found["items"]] == want.ids.tolist()
    np.testing.assert_allclose([one["score"] for one in found["items"]], want.scores, rtol=1e-6)
    denied = ask("recommend", trained / "model", "--items", "1,2", "-n", 3, "--deny", "5,6")
    assert not {1, 2, 5, 6} & {one["item"] for one in denied["items"]}


@pytest.mark.parametrize("command", ["steer", "recommend"])
def test_a_knob_that_is_none_is_said_to_be(trained, tmp_path, capsys, command):
    fitted = SteerableRecommender.load(trained / "model").fitted
    told = np.full(len(fitted.concepts.names), 0.9)
    told[0] = 0.52
    found = replace(fitted, concepts=replace(fitted.concepts, confidence=told))
    model = str(SteerableRecommender.from_fitted(found).save(tmp_path / "model"))
    bad, good = fitted.concepts.names[:2]
    for wish, said in ((f"{bad}=0.3, #3=0.1", True), (f"{good}=0.3", False)):
        asked = [wish] if command == "steer" else ["--steer", wish]
        assert main([command, model, *asked, "--items", "1"]) == 0
        assert (f"{bad}: no reliable knob (confidence 0.52)" in capsys.readouterr().err) is said


def test_toward_is_asked_by_text(trained, ask, capsys, tmp_path):
    model = SteerableRecommender.load(trained / "model")
    user, concept = model.fitted.user_ids[0], model.concepts()[0].name
    want = model.recommend(user, n=8, steer=toward(concept, 0.4))
    wish = f"toward:{concept}=0.4"
    found = ask("recommend", trained / "model", "--user", user, "-n", 8, "--steer", wish)
    assert [one["item"] for one in found["items"]] == want.ids.tolist()
    found = ask("steer", trained / "model", wish, "--user", user, "-n", 8)
    assert [one["item"] for one in found["after"]] == want.ids.tolist()
    assert found["before"] != found["after"]
    entry = next(one for one in ask("concepts", trained / "model") if one["name"] == concept)
    known = model.fitted.probed.get(concept)
    assert entry["toward"] == known.verdict
    assert entry["toward_confidence"] == pytest.approx(known.confidence)
    low = np.full(len(model.fitted.probed.names), 0.52)
    doubted = replace(model.fitted, probed=replace(model.fitted.probed, confidence=low))
    path = str(SteerableRecommender.from_fitted(doubted).save(tmp_path / "doubted"))
    for text, said in ((wish, True), (f"{concept}=0.3", False)):
        assert main(["steer", path, text, "--user", str(user)]) == 0
        told = f"toward {concept}: no reliable knob (confidence 0.52)" in capsys.readouterr().err
        assert told is said
    old = replace(model.fitted, probed=None)
    path = str(SteerableRecommender.from_fitted(old).save(tmp_path / "old"))
    assert {one["toward"] for one in ask("concepts", path)} == {None}
    code, said = fails(capsys, "recommend", path, "--user", user, "--steer", wish)
    assert code == 1 and "label it again" in said and "cfsae label MODEL SOURCE" in said
    assert main(["label", path, SOURCE]) == 0
    assert ask("steer", path, wish, "--user", user)["after"]


def test_steer_explain_concepts_info(trained, ask):
    model = trained / "model"
    user = SteerableRecommender.load(model).fitted.user_ids[1]
    names = [one["name"] for one in ask("concepts", model)]
    assert names and ask("concepts", model, "--search", names[0])[0]["name"] == names[0]
    steered = ask("steer", model, f"{names[0]}=0.6", "--user", user, "-n", 5)
    assert len(steered["before"]) == len(steered["after"]) == 5
    item = steered["before"][0]["item"]
    why = ask("explain", model, "--user", user, "--item", item)
    total = sum(one["share"] for one in why["latents"]) + why["base"] + why["residual"]
    assert total == pytest.approx(steered["before"][0]["score"], rel=1e-4)
    assert ask("info", model)["latents"] == 512


def test_evaluate_repeats_the_metrics_of_training(trained, ask):
    saved = json.loads((trained / "metrics.json").read_text())
    again = ask("evaluate", trained / "model", SOURCE, "--steering", "--min-items", 5)
    assert {name: again[name] for name in saved} == saved  # dead latents over the same users too
    assert len(again["knobs"]) >= 3
    assert all(0 <= share <= 1 for knob in again["knobs"] for share in knob["shares"])


def test_label_again(trained, ask, tmp_path):
    import shutil

    model = shutil.copytree(trained / "model", tmp_path / "model")
    assert main(["label", str(model), SOURCE, "--top", "1"]) == 0
    assert all(len(one["latents"]) == 1 for one in ask("concepts", model))


def test_tables_are_drawn(trained, capsys):
    model = str(trained / "model")
    user = str(SteerableRecommender.load(model).fitted.user_ids[0])
    item = str(SteerableRecommender.load(model).recommend(int(user), n=1).ids[0])
    for arguments in (
        ["recommend", model, "--user", user],
        ["steer", model, "#3=0.5", "--user", user],
        ["explain", model, "--user", user, "--item", item],
        ["concepts", model],
        ["info", model],
        ["doctor"],
        ["data", "info", SOURCE],
    ):
        assert main(arguments) == 0
        assert len(capsys.readouterr().out.splitlines()) > 4


def test_doctor_says_what_was_built(ask):
    found = ask("doctor")
    assert found["engine isa_used"] in found["engine isa"] and "engine why" in found


def test_generated_data_survives_a_round_trip(ask, tmp_path):
    where = tmp_path / "made"
    assert main(["data", "generate", "--users", "50", "--items", "30", "--out", str(where)]) == 0
    found = ask("data", "info", where)
    assert found["users"] == 50 and found["items"] <= 30 and found["tags"] > 0
    assert main(["data", "generate", "--out", str(where)]) == 1


def test_settings_from_files(tmp_path):
    from cfsae_fast.cli.settings import read_settings

    (tmp_path / "a.toml").write_text("[cfae]\nd = 48\n[data]\nmin_value = 4.0\n")
    (tmp_path / "a.yaml").write_text("cfae:\n  d: 48\ndata: {min_value: 4.0}\n")
    for name in ("a.toml", "a.yaml"):
        settings = read_settings(tmp_path / name, ("sae.k=7", "cfae.model=multvae"), None)
        assert (settings.cfae.d, settings.sae.k, settings.cfae.model) == (48, 7, "multvae")
        assert settings.data.min_value == 4.0


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["recommend", "absent", "--user", "1"], 1, "nothing there"),
        (["train", "no-such-data", "--out", "x"], 1, "no-such-data"),
        (["train", SOURCE, "--out", "x", "--set", "cfae.depth=2"], 1, "unknown ['depth']"),
        (["train", SOURCE, "--out", "x", "--set", "cfae"], 1, "section.key=value"),
        (["train", SOURCE, "--out", "x", "--set", "sae.k=0"], 1, "k must be at least 1, got 0"),
        (["recommend"], 2, "Missing argument"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_mistakes(capsys, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    got, said = fails(capsys, *arguments)
    assert got == code and message in said


def test_mistakes_about_a_model(capsys, trained):
    model = trained / "model"
    for arguments, code, message in [
        (["--user", "x"], 1, "user ids here are int"),
        (["--user", "999999"], 1, "user 999999 is not among"),
        ([], 2, "give --user or --items"),
        (["--items", "1,zzz"], 1, "'zzz' is not among"),
        (["--items", "1", "--steer", "no such thing"], 1, "unknown"),
        (["--items", "1", "--steer", "#1=7"], 1, "7"),
    ]:
        got, said = fails(capsys, "recommend", model, *arguments)
        assert got == code and message in said, said
