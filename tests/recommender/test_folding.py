"""A folded model answers as the unfolded one, is saved and mapped, and lives."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from benchmarks.problems import Sizes, make_fitted
from cfsae_fast import steering
from cfsae_fast.errors import ModelFormatError, UnknownIdError
from cfsae_fast.inference import CFAENetwork
from cfsae_fast.ops.folded import FoldedModel
from cfsae_fast.recommender import SteerableRecommender
from tests.recommender.conftest import small_model

STEERS = [None, {3: 0.4}, {3: 0.4, 7: 0.2}, {5: -1}, {2: 0.9, 4: -0.5}]


def folded(kind, sae="topk"):
    return SteerableRecommender.from_fitted(small_model(kind, sae).fitted).fold()


def assert_same(got, want):
    np.testing.assert_array_equal(got.ids, want.ids)
    np.testing.assert_array_equal(got.scores, want.scores)


def histories(model, count):
    ids, random = model.fitted.item_ids.values.tolist(), np.random.default_rng(4)
    return [[ids[i] for i in random.permutation(len(ids))[:size]] for size in range(count)]


@pytest.mark.parametrize("sae", ["topk", "batchtopk", "basic"])
@pytest.mark.parametrize("kind", ["elsa", "factors"])
@pytest.mark.parametrize("mode", ["residual", "reconstruct"])
def test_folding_changes_no_answer(kind, sae, mode):
    dense, fast = small_model(kind, sae), folded(kind, sae)
    users = dense.fitted.user_ids.values[:3].tolist()
    allow = dense.fitted.item_ids.values[5:90].tolist()
    for steer in STEERS:
        for who in ({"users": users}, {"histories": histories(dense, 9)}):
            options = {"steer": steer, "mode": mode, "allow": allow, "n": 12}
            assert_same(fast.recommend(**who, **options), dense.recommend(**who, **options))


@pytest.mark.parametrize(
    "steer, mode, at_once",
    [
        (None, "reconstruct", True),
        ({3: 0.4}, "reconstruct", True),
        ({5: -1}, "reconstruct", False),  # measured by the code, which comes first
        ({3: 0.4}, "residual", False),
    ],
)
def test_a_reconstructed_answer_is_one_call(steer, mode, at_once, monkeypatch):
    model, calls, one_call = folded("elsa"), [], FoldedModel.answer
    monkeypatch.setattr(FoldedModel, "answer", lambda *a, **o: calls.append(1) or one_call(*a, **o))
    model.recommend(histories=histories(model, 3), steer=steer, mode=mode)
    assert bool(calls) == at_once


def test_the_bytes_are_said_and_the_limit_is_kept():
    model = folded("elsa")
    tables = model.fitted.folded
    needed = tables.bytes_needed(model.fitted.cfae, model.fitted.sae)
    assert tables.nbytes == needed + 64  # two rows of four norms
    with pytest.raises(ValueError, match=f"limit_bytes must be at least {needed:,}"):
        model.fold(limit_bytes=needed - 1)
    assert model.unfold().fitted.folded is None


@pytest.mark.parametrize("sae", ["topk", "batchtopk"])
@pytest.mark.parametrize("kind", ["multvae", "multdae"])
def test_a_folded_layer_changes_scores_by_rounding_alone(kind, sae, tmp_path, monkeypatch):
    dense, fast = small_model(kind, sae), folded(kind, sae)
    fast = SteerableRecommender.load(fast.save(tmp_path / "m"))
    assert isinstance(fast.fitted.folded.layer.table.base, np.memmap)
    users = dense.fitted.user_ids.values[:30].tolist()
    for steer in STEERS:
        want, got = (
            one.recommend(users, n=12, steer=steer, mode="reconstruct") for one in (dense, fast)
        )
        np.testing.assert_allclose(got.scores, want.scores, atol=1e-5)
        assert (got.ids == want.ids).mean() > 0.99  # what lies closer may change places
        options = {"n": 12, "steer": steer}
        assert_same(fast.recommend(users, **options), dense.recommend(users, **options))
    live = fast.live(users[0], steer=STEERS[1], mode="reconstruct")
    one = fast.recommend(users[0], n=5, steer=STEERS[1], mode="reconstruct")
    np.testing.assert_array_equal(live.top(5).scores, one.scores)
    monkeypatch.setattr(CFAENetwork, "to_items", None)  # the dense layer is not asked
    fast.recommend(users, steer=STEERS[1], mode="reconstruct")


@pytest.mark.parametrize("kind", ["multvae", "multdae"])
def test_the_bytes_of_a_folded_layer(kind):
    fitted = folded(kind).fitted
    assert fitted.folded.nbytes == fitted.folded.bytes_needed(fitted.cfae, fitted.sae)


def test_a_layer_does_not_fold_for_codes_of_many_latents():
    with pytest.raises(ValueError, match="few latents, got multvae with codes of 96"):
        folded("multvae", "basic")


def test_a_folded_layer_that_does_not_fit_is_refused(tmp_path):
    file = folded("multvae").save(tmp_path / "m") / "folded" / "layer.table.npy"
    np.save(file, np.load(file)[:-1])
    with pytest.raises(ModelFormatError, match="do not fit the model .layer"):
        SteerableRecommender.load(tmp_path / "m")


def test_saved_tables_are_mapped_and_used(tmp_path):
    model = folded("elsa")
    model.save(tmp_path / "m")
    loaded = SteerableRecommender.load(tmp_path / "m")
    side = loaded.fitted.folded.encode_side
    assert isinstance(side.table.values.base, np.memmap) and not side.table.values.flags.writeable
    who = {"histories": histories(model, 4), "steer": STEERS[1], "mode": "reconstruct"}
    assert_same(loaded.recommend(**who), model.recommend(**who))
    loaded.save(tmp_path / "m")  # over the files it has mapped
    assert_same(SteerableRecommender.load(tmp_path / "m").recommend(**who), model.recommend(**who))
    loaded.unfold().save(tmp_path / "m")
    assert SteerableRecommender.load(tmp_path / "m").fitted.folded is None


def test_foreign_and_damaged_tables_are_refused(tmp_path):
    one, other = folded("elsa").save(tmp_path / "a"), folded("factors").save(tmp_path / "b")
    (other / "folded").rename(tmp_path / "kept")
    (one / "folded").rename(other / "folded")
    with pytest.raises(ModelFormatError, match="other weights"):
        SteerableRecommender.load(other)
    (other / "folded").rename(one / "folded")
    file = one / "folded" / "encode.values.npy"
    whole = np.load(file)
    np.save(file, whole[:-1])
    with pytest.raises(ModelFormatError, match="do not fit the model .encode"):
        SteerableRecommender.load(one)
    np.save(file, whole)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelFormatError, match="damaged"):
        SteerableRecommender.load(one)


class Edits(RuleBasedStateMachine):
    """Random edits of a live profile; after each, it answers as recommend does."""

    kind = "elsa"

    @initialize(mode=st.sampled_from(["residual", "reconstruct"]), seen=st.booleans())
    def begin(self, mode, seen):
        self.model = folded(self.kind)
        self.dense = small_model(self.kind, "topk")
        self.items = self.model.fitted.item_ids.values.tolist()
        self.options = {"mode": mode, "exclude_seen": seen}
        self.profile = self.model.live(history=[], **self.options)
        self.history, self.steer, self.n = set(), None, 10

    @rule(at=st.integers(0, 149))
    def add(self, at):
        self.profile.add(self.items[at])
        self.history.add(self.items[at])

    @rule(at=st.integers(0, 10**6))
    def remove(self, at):
        if self.history:
            item = sorted(self.history)[at % len(self.history)]
            self.profile.remove(item)
            self.history.discard(item)

    @rule(steer=st.sampled_from(STEERS))
    def turn(self, steer):
        self.profile.turn(steer)
        self.steer = steer

    @rule(n=st.sampled_from([1, 10, 149, 200]))
    def ask_for(self, n):
        self.n = n

    @invariant()
    def answers_as_recommend(self):
        if not hasattr(self, "profile"):
            return
        want = self.dense.recommend(
            histories=[sorted(self.history)], n=self.n, steer=self.steer, **self.options
        )
        got = self.profile.top(self.n)
        np.testing.assert_array_equal(got.ids, want.ids[0])
        np.testing.assert_array_equal(got.scores, want.scores[0])


class DenseEncoderEdits(Edits):
    kind = "factors"


class UnfoldedEdits(Edits):
    @initialize(mode=st.sampled_from(["residual", "reconstruct"]), seen=st.booleans())
    def begin(self, mode, seen):
        super().begin(mode, seen)
        self.profile = self.dense.live(history=[], **self.options)


for machine in (Edits, DenseEncoderEdits, UnfoldedEdits):
    machine.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestEdits, TestDenseEncoderEdits = Edits.TestCase, DenseEncoderEdits.TestCase
TestUnfoldedEdits = UnfoldedEdits.TestCase


def test_a_live_user_starts_as_stored():
    model = folded("factors")
    user = model.fitted.user_ids[5]
    for mode in ("residual", "reconstruct"):
        profile = model.live(user=user, steer={3: 0.4}, mode=mode)
        want = small_model("factors", "topk").recommend(user, steer={3: 0.4}, mode=mode)
        assert_same(profile.top(), want)


def test_a_live_profile_says_what_is_wrong():
    model = folded("elsa")
    profile = model.live(history=model.fitted.item_ids.values[:2].tolist())
    assert profile.history == model.fitted.item_ids.values[:2].tolist()
    with pytest.raises(UnknownIdError):
        profile.add("no such item")
    with pytest.raises(ValueError, match="in the history"):
        profile.remove(model.fitted.item_ids[9])
    with pytest.raises(ValueError, match="concept"):
        profile.turn({"no such concept": 0.5})
    with pytest.raises(ValueError, match="n must be"):
        profile.top(0)
    with pytest.raises(ValueError, match="mode"):
        model.live(history=[], mode="other")
    with pytest.raises(ValueError, match="users or histories"):
        model.live()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_catalogue_of_several_ranges_answers_alike(threads):
    """Columns go in ranges of 4,096: items at their ends are seen, denied, or come first."""
    fitted = make_fitted(Sizes(9001, 8, 40, 4))
    dense = SteerableRecommender.from_fitted(fitted)
    tables = SteerableRecommender.from_fitted(fitted).fold()
    ends = [0, 4095, 4096, 8191, 8192, 9000]
    for item in ends:
        for deny in (None, ends):
            options = {"histories": [[item]], "mode": "reconstruct", "deny": deny, "n": 50}
            for steer in (None, {"one concept": 0.4}):
                want = dense.recommend(steer=steer, **options)
                got = tables.recommend(steer=steer, threads=threads, **options)
                np.testing.assert_array_equal(got.ids, want.ids)
                np.testing.assert_array_equal(got.scores, want.scores)
                assert not set(got.ids[0]) & {item, *(deny or ())}
        own = {"histories": [[item]], "mode": "reconstruct", "n": 50, "exclude_seen": False}
        assert item in tables.recommend(threads=threads, **own).ids[0]  # leaving it out is seen
        assert item not in tables.recommend(threads=threads, deny=[item], **own).ids[0]


def test_a_wish_is_resolved_once_and_forgotten_in_time(monkeypatch):
    fitted = make_fitted(Sizes(30, 4, 12, 2))
    monkeypatch.setattr("cfsae_fast.recommender.fitted.WISHES", 2)
    first = steering.as_turns({"one concept": 0.1})
    kept = fitted.resolved(first)
    assert fitted.resolved(steering.as_turns({"one concept": 0.1})) is kept
    for alpha in (0.2, 0.3):  # the second of them finds no place
        wish = steering.as_turns({"one concept": alpha})
        row = fitted.resolved(wish)
        for mine, want in zip(row, steering.resolve(wish, fitted.concepts), strict=True):
            np.testing.assert_array_equal(mine, want)
    assert fitted.resolved(first) is not kept
