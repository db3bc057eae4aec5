"""Concept mappings against the paper's formulas written out densely, and against planted truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import concepts
from cfsae_fast.concepts import scores
from cfsae_fast.ops import Code

sparse = pytest.importorskip("scipy.sparse")

METHODS = concepts.METHODS


def code_of(dense):
    """The code of dense item activations (I, L): sorted by value, padded."""
    k = max(1, int((dense > 0).sum(axis=1).max()))
    indices = np.argsort(-dense, axis=1, kind="stable")[:, :k].astype(np.int32)
    values = np.take_along_axis(dense, indices, axis=1).astype(np.float32)
    indices[values == 0] = -1
    return Code(indices, values)


def named(count):
    return [f"tag {number}" for number in range(count)]


def build(dense, counts, **options):
    counts = np.asarray(counts)
    return concepts.build(
        code_of(np.asarray(dense, float)),
        sparse.csr_array(counts),
        named(len(counts)),
        np.shape(dense)[1],
        **options,
    )


def dense_tf_idf(table):
    """METHOD.md 5.4, literally: table (terms, documents)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        tf = np.nan_to_num(table / table.sum(axis=0), nan=0.0)
    df = (table != 0).sum(axis=1, keepdims=True)
    return tf * (np.log((table.shape[1] + 1) / (df + 1)) + 1)


def dense_activity(activations, counts):
    return counts / max(counts.sum(), 1e-300) @ activations


@st.composite
def tables(draw):
    """Item activations (I, L) and tag counts (T, I): sparse, some latents dead, some tags empty."""
    items, latents, tags = (draw(st.integers(1, high)) for high in (12, 9, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    activations = rng.random((items, latents)) * (rng.random((items, latents)) < 0.4)
    activations[:, rng.random(latents) < 0.2] = 0
    counts = rng.integers(1, 6, (tags, items)) * (rng.random((tags, items)) < 0.4)
    return activations.astype(np.float32).astype(float), counts


@given(tables())
@settings(deadline=None, max_examples=60)
def test_scores_equal_the_dense_formulas(case):
    activations, counts = case
    joined = scores.join(code_of(activations), sparse.csr_array(counts), activations.shape[1])
    table = dense_activity(activations, counts)
    np.testing.assert_allclose(scores.activity(joined).toarray(), table, atol=1e-12)
    np.testing.assert_allclose(scores.by_tag(joined).toarray(), dense_tf_idf(table.T).T, atol=1e-9)
    np.testing.assert_allclose(scores.by_latent(joined).toarray(), dense_tf_idf(table), atol=1e-9)


@given(tables())
@settings(deadline=None, max_examples=60)
def test_lift_equals_its_formula(case):
    activations, counts = case
    joined = scores.join(code_of(activations), sparse.csr_array(counts), activations.shape[1])
    got, prior = scores.lift(joined).toarray(), scores.LIFT_PRIOR_ITEMS
    q = activations.mean(axis=0)
    for tag, row in enumerate(counts):
        on = activations[row > 0]
        for latent in range(activations.shape[1]):
            m = (on[:, latent].sum() + prior * q[latent]) / (len(on) + prior)
            want = m * np.log(m / q[latent]) if len(on) and on[:, latent].any() else 0.0
            assert got[tag, latent] == pytest.approx(max(want, 0.0), abs=1e-9)


def simplified(method, table):
    """The same argmaxes after what cancels is struck out (METHOD.md 5.5)."""
    tags, latents = table.shape
    idf_latent = np.log((tags + 1) / ((table > 0).sum(axis=0) + 1)) + 1
    idf_tag = np.log((latents + 1) / ((table > 0).sum(axis=1) + 1)) + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "distinctive_tag": np.nan_to_num(table / table.sum(axis=1, keepdims=True)),
            "characteristic_tag": table * idf_tag[:, None],
            "best_characterizes": table * idf_latent,
            "most_unique": np.nan_to_num(table / table.sum(axis=0)),
        }[method]


@pytest.mark.parametrize("method", ["best_characterizes", "most_unique"])
@given(case=tables())
@settings(deadline=None, max_examples=40)
def test_concepts_get_the_latent_of_the_argmax_identity(method, case):
    activations, counts = case
    table = dense_activity(activations, counts)
    want, found = simplified(method, table), build(activations, counts, method=method, top=1)
    for tag, name in enumerate(found.names):
        if table[tag].max(initial=0) == 0:
            assert name in found.absent
            continue
        latent = found.get(name).latents[0]
        assert want[tag, latent] == pytest.approx(want[tag].max(), rel=1e-9)


@pytest.mark.parametrize("method", ["distinctive_tag", "characteristic_tag"])
@given(case=tables())
@settings(deadline=None, max_examples=40)
def test_latents_get_the_tag_of_the_argmax_identity(method, case):
    activations, counts = case
    table = dense_activity(activations, counts)
    want = simplified(method, table)
    names = concepts.latent_names(
        code_of(activations),
        sparse.csr_array(counts),
        named(len(counts)),
        activations.shape[1],
        method=method,
    )
    assert set(names) == set(np.flatnonzero(table.max(axis=0) > 0))
    for latent, name in names.items():
        tag = named(len(counts)).index(name)
        assert want[tag, latent] == pytest.approx(want[:, latent].max(), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@given(case=tables(), top=st.integers(1, 4))
@settings(deadline=None, max_examples=25)
def test_any_map_is_sound(method, case, top):
    activations, counts = case
    found = build(activations, counts, method=method, top=top)
    alive = set(np.flatnonzero(activations.sum(axis=0)))
    for concept in found:
        assert 1 <= len(concept.latents) <= top
        assert set(concept.latents.tolist()) <= alive
        assert len(set(concept.latents.tolist())) == len(concept.latents)
        assert (np.diff(concept.weights) <= 0).all() and concept.weights.sum() == pytest.approx(1)
        assert concept.score > 0
    assert found.counts.tolist() == (counts > 0).sum(axis=1).tolist()
    assert len(found) + len(found.absent) == len(counts)


# Latent 0 fires on everything, 1 on the first two items, 2 on the third; latent 3 is dead.
ALWAYS_ON = [[5.0, 1, 0, 0], [5, 1, 0, 0], [5, 0, 2, 0], [5, 0, 0, 0]]
TAGS = [[9, 1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_the_four_maps_and_lift_by_hand():
    # G ~ rows: (50, 10, 0), (15, 0, 6), (5, 0, 0); idf of the latents: ln(5/4)+1, ln(5/2)+1 twice
    maps = {method: build(ALWAYS_ON, TAGS, method=method, top=1) for method in METHODS}
    first = {m: [c.latents.tolist() for c in found] for m, found in maps.items()}
    assert first["best_characterizes"] == [[0], [0], [0]]  # the pathology of METHOD.md 5.5
    assert first["most_unique"] == [[1], [2], [0]]
    assert first["lift"] == [[1], [2]]  # tag 2 has nothing of its own
    assert first["distinctive_tag"] == [[1], [2], [0]]
    assert maps["lift"].absent == {
        "tag 2": "no latent fires more on its items than elsewhere",
        "tag 3": "no item carries it",
    }


def test_weights_are_the_scores_of_the_best_latents():
    found = build(ALWAYS_ON, TAGS, method="most_unique", top=2).get("tag 0")
    assert found.latents.tolist() == [1, 0]
    np.testing.assert_allclose(found.weights, np.array([1, 50 / 70]) / (1 + 50 / 70), rtol=1e-6)


def test_ties_go_to_the_smaller_latent():
    found = build([[1.0, 2.0] * 40], [[1]], method="best_characterizes", top=42)
    assert found.get("tag 0").latents.tolist() == [*range(1, 80, 2), 0, 2]


def test_absent_concepts_say_why():
    found = build([[0.0, 0], [1, 0], [1, 0]], [[1, 0, 0], [0, 1, 0], [0, 1, 1]], min_items=2)
    assert found.absent["tag 0"] == "only 1 items carry it, min_items is 2"
    assert found.absent["tag 1"] == "only 1 items carry it, min_items is 2"
    assert "tag 2" in found
    silent = build([[0.0, 0], [1, 0]], [[1, 0], [0, 1]], method="best_characterizes")
    assert silent.absent == {"tag 0": "its items activate no latent"}
    crowded = build([[1.0]], [[1], [2]], method="characteristic_tag")
    assert crowded.absent == {"tag 0": "no latent has it as its most characteristic tag"}


def test_planted_concepts_are_found():
    rng = np.random.default_rng(5)
    items, tags, latents = 600, 20, 64
    carried = rng.random((tags, items)) < 0.08
    planted = rng.permutation(latents - 1)[:tags]
    activations = rng.random((items, latents)) * (rng.random((items, latents)) < 0.05)
    activations[:, -1] = 3.0  # always on
    for tag, latent in enumerate(planted):
        activations[carried[tag], latent] += 1.0
    found = build(activations, carried.astype(int), method="lift", top=3)
    assert [concept.latents[0] for concept in found] == planted.tolist()


def test_no_items_no_tags_no_codes():
    empty = concepts.build(code_of(np.zeros((3, 4))), sparse.csr_array((0, 3)), [], 4)
    assert len(empty) == 0 and not empty.absent and empty.browse() == []
    nothing = concepts.build(
        Code(np.empty((0, 2), np.int32), np.empty((0, 2), np.float32)),
        sparse.csr_array((1, 0)),
        ["a"],
        4,
    )
    assert nothing.absent == {"a": "no item carries it"}


def test_inputs_are_not_changed():
    tags = sparse.csr_array(
        (np.array([1.0, 0.0, 2.0]), np.array([1, 0, 1]), np.array([0, 3])), shape=(1, 2)
    )
    before = [tags.data.copy(), tags.indices.copy(), tags.indptr.copy()]
    concepts.build(code_of(np.eye(2)), tags, ["a"], 2)
    for old, new in zip(before, (tags.data, tags.indices, tags.indptr), strict=True):
        np.testing.assert_array_equal(old, new)


CODES, MATRIX = code_of(np.eye(3)), sparse.csr_array(np.eye(3))
LETTERS = ["a", "b", "c"]
BAD = {
    "method": (dict(method="best"), r"method must be one of \('distinctive_tag'.* got 'best'"),
    "top": (dict(top=0), "top must be at least 1, got 0"),
    "names": (dict(names=["a"]), r"names must be one per tag \(3\), got 1"),
    "repeated": (dict(names=["a", "a", "b"]), "names must be distinct"),
    "items": (dict(tags=MATRIX[:, :2]), r"tags must have one column per item \(3\), got \(3, 2\)"),
    "latents": (dict(n_latents=2), r"codes must name latents in \[-1, n_latents=2\)"),
    "nan tag": (dict(tags=MATRIX * np.nan), "tags must be finite and not negative"),
    "negative tag": (dict(tags=-MATRIX), "tags must be finite and not negative"),
    "nan code": (dict(codes=Code(CODES.indices, CODES.values * np.inf)), "codes must be finite"),
    "code shapes": (dict(codes=Code(CODES.indices, CODES.values.T)), "codes must have shapes"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD.keys())
def test_bad_input(change, message):
    arguments = {"codes": CODES, "tags": MATRIX, "names": LETTERS, "n_latents": 3} | change
    codes, tags, names, n_latents = (
        arguments.pop(name) for name in ("codes", "tags", "names", "n_latents")
    )
    with pytest.raises(ValueError, match=message):
        concepts.build(codes, tags, names, n_latents, **arguments)


def test_only_namings_name_latents():
    with pytest.raises(ValueError, match="method must be one of"):
        concepts.latent_names(CODES, MATRIX, LETTERS, 3, method="most_unique")


def test_lift_counts_items_by_the_root_of_their_popularity():
    codes = Code(np.array([[0], [1], [0], [1]], np.int32), np.ones((4, 1), np.float32))
    tags = sparse.csr_array(np.array([[1, 1, 0, 0], [0, 0, 1, 1]]))
    equal = concepts.build(codes, tags, ["a", "b"], 2, method="lift")
    assert equal.absent  # both latents fire as often on the tag as elsewhere
    taken = concepts.build(
        codes, tags, ["a", "b"], 2, method="lift", popularity=np.array([9, 1, 1, 9])
    )
    assert taken.target("a")[0].tolist() == [0] and taken.target("b")[0].tolist() == [1]
    # by hand: weights 1.5, .5, .5, 1.5; m = (1.5 + 5 * .5) / (2 + 5), q = .5
    m = 4 / 7
    assert taken.get("a").score == pytest.approx(m * np.log(m / 0.5), rel=1e-6)
    with pytest.raises(ValueError, match="popularity must be 4"):
        concepts.build(codes, tags, ["a", "b"], 2, popularity=np.array([1, -1, 1, 1]))
