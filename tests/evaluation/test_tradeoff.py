"""Trade-off numbers worked out by hand; wishes that leak nothing; TEASER's closed form."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_array

from cfsae_fast.data import OUTSIDE, Tags, generate
from cfsae_fast.errors import DataError
from cfsae_fast.evaluation import prepare, steerers, teaser, tradeoff
from cfsae_fast.evaluation.tradeoff import Curve, bootstrap
from cfsae_fast.evaluation.wishes import fair_wishes, known_tags, paper_wishes
from cfsae_fast.ops import Rows


def test_hypervolume_by_hand():
    # 0.4 x 0.1, then a corner 0.3 x 0.2 on top of it; the other points are dominated
    points = np.array([[0.4, 0.1], [0.3, 0.3], [0.2, 0.25], [0.1, 0.28]])
    assert tradeoff.hypervolume(points) == pytest.approx(0.4 * 0.1 + 0.3 * 0.2)
    assert tradeoff.hypervolume(points[::-1]) == pytest.approx(0.1)
    assert tradeoff.hypervolume(np.array([[0.5, np.nan]])) == 0


def test_area_and_cost_by_hand():
    points = np.array([[0.4, 0.1], [0.38, 0.15], [0.3, 0.3]])
    assert tradeoff.area_under(points) == pytest.approx(0.02 * 0.125 + 0.08 * 0.225)
    # segment 0.2 lies a third of the way from (0.38, 0.15) to (0.3, 0.3)
    assert tradeoff.cost_of(points) == pytest.approx(1 - (0.38 - 0.08 / 3) / 0.4)
    assert np.isnan(tradeoff.cost_of(points, factor=4))


def test_gini_diversity_and_collateral_by_hand():
    assert tradeoff.gini(np.array([2, 2, 2])) == pytest.approx(0)
    assert tradeoff.gini(np.array([0, 0, 5])) == pytest.approx(2 / 3)
    assert tradeoff.gini(np.array([1, 3])) == pytest.approx(0.25)
    directions = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert tradeoff.diversity(np.array([[0, 1, -1]]), directions) == pytest.approx(1)
    got = tradeoff.diversity(np.array([[0, 1, 2]]), directions)
    assert got == pytest.approx(1 - (0 + 0.6 + 0.8) / 3)
    carried = np.array([[True, False, False], [False, True, True]])
    shares = tradeoff.concept_shares(np.array([[0, 1], [2, -1]]), carried)
    np.testing.assert_allclose(shares, [[0.5, 0.5], [0, 1]])
    before, after = np.array([[0.5, 0.5]]), np.array([[1.0, 0.2]])
    assert tradeoff.collateral(before, after, np.array([0])) == pytest.approx(0.3)


def test_a_whole_curve_by_hand():
    """Two users, four items, two concepts; strength 1 swaps the first user's second item."""
    lists = {0.0: np.array([[0, 1], [2, 1]]), 1.0: np.array([[0, 3], [2, 1]])}
    steerer = tradeoff.Steerer("x", (0.0, 1.0), lambda t, seen: lists[t])
    rows = [Rows(np.array([0, 1, 2]), np.array(items, np.int32)) for items in ([1, 1], [3, 3])]
    empty = Rows(np.zeros(3, np.int64), np.empty(0, np.int32))
    wishes = SimpleNamespace(inputs=empty, personal=rows[0], segment=rows[1], barred=empty,
                             tag=np.array([1, 1]))  # fmt: skip
    carried = np.array([[True, True, False, False], [False, False, False, True]])
    eye = np.eye(4)
    found = tradeoff.curve(steerer, wishes, carried=carried, popularity=np.array([9, 5, 1, 0]),
                           items=eye, n=2)  # fmt: skip
    second = 1 / np.log2(3)
    np.testing.assert_allclose(found.personal_ndcg, [[second, second], [0, second]])
    np.testing.assert_allclose(found.segment_ndcg, [[0, 0], [second, 0]])
    np.testing.assert_allclose(found.personal_recall, [[1, 1], [0, 1]])
    np.testing.assert_allclose(found.segment_recall, [[0, 0], [1, 0]])
    # the other concept, 0, falls from 1 to 1/2 for one of two users
    np.testing.assert_allclose(found.collateral, [0, 0.25])
    # one of four slots goes from 5 interactions to 0
    np.testing.assert_allclose(found.popularity, [0, -np.log(6) / 4])
    np.testing.assert_allclose(found.coverage, [3 / 4, 1])
    np.testing.assert_allclose(found.gini, [tradeoff.gini(np.array([1, 2, 1, 0])), 0])
    np.testing.assert_allclose(found.diversity, [1, 1])


def test_blocks_of_users_change_nothing(rng, monkeypatch):
    ids, carried = rng.integers(-1, 9, size=(20, 4)), rng.random((5, 9)) < 0.5
    scores = rng.random((20, 9))
    seen = Rows(np.arange(21), rng.integers(0, 9, 20).astype(np.int32))
    found = []
    for chunk in (3, 100):
        monkeypatch.setattr(tradeoff, "CHUNK", chunk)
        monkeypatch.setattr(steerers, "CHUNK", chunk)
        ranked = steerers._by_score(lambda t, users: t * scores[users], 4)
        found.append((tradeoff.concept_shares(ids, carried), ranked(2.0, seen)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (found[0][1] == seen.items[:, None]).any()


def curve_of(personal, segment):
    nothing = np.zeros(len(personal))
    return Curve("x", tuple(range(len(personal))), personal, segment, personal, segment,
                 *[nothing] * 5)  # fmt: skip


def test_bootstrap_covers_and_pairs(rng):
    personal, segment = rng.random((3, 200)), rng.random((3, 200))
    segment[0, :5] = np.nan
    one = curve_of(personal, segment)
    found = bootstrap([one], lambda points: points[0][0, 0])
    assert found.value == pytest.approx(personal[0].mean())
    half = (found.high - found.low) / 2
    assert half == pytest.approx(1.96 * personal[0].std() / np.sqrt(200), rel=0.2)
    better = curve_of(personal + 0.01, segment)
    gap = bootstrap([better, one], lambda points: points[0][0, 0] - points[1][0, 0])
    assert gap.low == pytest.approx(0.01) and gap.high == pytest.approx(0.01)


@pytest.fixture(scope="module")
def cut():
    dataset = generate(users=300, items=200, concepts=8, seed=5, mean_history=20)
    return prepare(dataset, seed=1)


@pytest.mark.parametrize("unseen", [False, True])
def test_fair_wishes_come_from_the_history_and_answers_from_elsewhere(cut, unseen):
    wishes = fair_wishes(cut, unseen=unseen, seed=2)
    known = wishes.known.toarray() > 0
    assert len(wishes.tag) > 20
    for user, tag in enumerate(wishes.tag):
        given = row(wishes.inputs, user)
        answers, barred = row(wishes.segment, user), row(wishes.barred, user)
        assert known[tag][given].sum() >= 2
        assert wishes.carried[tag][answers].all()
        assert not np.isin(answers, given).any() and np.isin(given, barred).all()
        assert not np.isin(answers, barred).any()
        if unseen:
            assert not known[tag][answers].any()


def test_wishes_do_not_depend_on_what_is_scored(cut):
    """Everybody gets somebody else's targets, but keeps the inputs: the wishes stay."""
    wishes, targets = fair_wishes(cut, seed=2), cut.test.targets
    swapped = targets.select_users(np.arange(targets.n_users)[::-1])
    other = fair_wishes(cut._replace(test=cut.test._replace(targets=swapped)), seed=2)
    np.testing.assert_array_equal(wishes.tag, other.tag)
    np.testing.assert_array_equal(wishes.segment.items, other.segment.items)
    assert not np.array_equal(wishes.personal.items, other.personal.items)


def test_paper_wishes_follow_the_targets(cut):
    wishes = paper_wishes(cut, fewest_assignments=1)
    counts = wishes.carried.astype(int)
    for user, tag in enumerate(wishes.tag):
        more = counts[:, row(wishes.personal, user)].sum(1) - counts[
            :, row(wishes.inputs, user)
        ].sum(1)
        assert more[tag] == more.max() > 0 and tag == np.argmax(more)
        np.testing.assert_array_equal(row(wishes.segment, user), np.flatnonzero(counts[tag]))


def test_paper_wishes_count_assignments_and_not_items(cut):
    """Of the published vocabulary are tags on three items, said often, some outside the catalogue;
    of ours tags on many items, said once each."""
    held = np.argsort(-cut.test.targets.counts_per_item())[:6]
    tags = {"often": np.repeat([*held[:3], OUTSIDE], 25), "rare": np.repeat(held[3:], 33),
            "wide": np.arange(99), "once": np.arange(100, 199)}  # fmt: skip
    items = np.concatenate(list(tags.values())).astype(np.int32)
    at = np.repeat(np.arange(len(tags)), [len(one) for one in tags.values()]).astype(np.int32)
    made = Tags(tuple(tags), at, items, np.ones(len(at), np.float32))
    other = cut._replace(dataset=replace(cut.dataset, tags=made), tags=made)
    wishes = paper_wishes(other)
    assert wishes.names == ("often",) and wishes.carried.sum(axis=1).tolist() == [3]
    users = range(len(wishes.tag))
    assert users and all(np.isin(held[:3], row(wishes.personal, user)).any() for user in users)
    assert fair_wishes(other).names == ("wide", "once")
    with pytest.raises(DataError, match=r"at least 101 assignments .* got at most 100"):
        paper_wishes(other, fewest_assignments=101)


def test_no_tag_of_a_test_user_is_known(cut):
    """Give every assignment a user: what a map may read is the training users' alone."""
    tags, n_users = cut.dataset.tags, cut.dataset.interactions.n_users
    users = (np.arange(tags.n_assignments) * 7 % n_users).astype(np.int32)
    dataset = replace(cut.dataset, tags=replace(tags, users=users))
    train = set(cut.split.train.tolist())
    said = {
        (tags.names[t], int(i))
        for t, i, u in zip(tags.tags, tags.items, users, strict=True) if u in train
    }  # fmt: skip
    sizes = {name: sum(t == name for t, _ in said) for name in tags.names}
    fewest = min(sizes.values()) + 1
    wishes = fair_wishes(cut._replace(dataset=dataset), fewest_items=fewest)
    told = known_tags(wishes)
    pairs = {(told.names[t], int(i)) for t, i in zip(told.tags, told.items, strict=True)}
    assert pairs and pairs <= said
    assert set(wishes.names) == {name for name, size in sizes.items() if size >= fewest}
    assert len(said) < tags.n_assignments


def row(rows, at):
    return rows.items[rows.offsets[at] : rows.offsets[at + 1]]


@pytest.mark.parametrize("shape", [(40, 25), (15, 30)])
def test_teaser_closed_form_is_the_gradient_optimum(rng, shape):
    histories = csr_array((rng.random(shape) < 0.3).astype(float))
    tags = (rng.random((6, shape[1])) < 0.3).astype(float)
    options = {"spread": 2.0, "weight": 0.5}
    closed = teaser.fit(histories, tags, **options)
    descended = teaser.fit_by_gradient(histories, tags, **options)
    np.testing.assert_allclose(closed.encoder, descended.encoder, atol=1e-6)
    best = teaser.objective(closed, histories, 2.0, 0.5)
    for _ in range(5):
        nudged = replace(closed, encoder=closed.encoder + 1e-3 * rng.normal(size=(shape[1], 6)))
        assert teaser.objective(nudged, histories, 2.0, 0.5) > best


def test_teaser_descends_where_eigenvectors_are_too_many(rng, monkeypatch):
    histories = csr_array((rng.random((40, 25)) < 0.3).astype(float))
    tags, asked = (rng.random((6, 25)) < 0.3).astype(float), []
    closed, real = teaser.fit(histories, tags), teaser.fit_by_gradient
    monkeypatch.setattr(teaser, "LARGEST", 24)
    monkeypatch.setattr(
        teaser, "fit_by_gradient", lambda *given, **how: asked.append(how) or real(*given, **how)
    )
    np.testing.assert_allclose(teaser.fit(histories, tags).encoder, closed.encoder, atol=1e-5)
    assert len(asked) == 1


def test_teaser_turns_the_tag(rng):
    tags = np.array([[1.0, 0, 1], [0, 1, 0]])
    model = teaser.Teaser(np.zeros((3, 2)), tags.T)
    scores = model.scores(csr_array(np.ones((2, 3))), np.array([0, 1]), 0.5)
    np.testing.assert_allclose(scores, [[0.5, 0, 0.5], [0, 0.5, 0]])
