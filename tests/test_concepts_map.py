"""ConceptMap: finding concepts by name and by text, saving, and damage."""

import subprocess
import sys

import numpy as np
import pytest

from cfsae_fast.concepts import ConceptMap
from cfsae_fast.errors import ModelFormatError, UnknownConceptError

NAMES = ("film noir", "Sci-Fi", "sci fi", "neo-noir", "noir thriller", "musical", "ghost")


def example(**changes):
    parts = {
        "names": NAMES,
        "offsets": np.array([0, 2, 3, 4, 5, 6, 7, 7]),
        "latents": np.array([4, 1, 0, 2, 3, 5, 6]),
        "weights": np.array([0.75, 0.25, 1, 1, 1, 1, 1]),
        "scores": np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.6, 0.0]),
        "counts": np.array([40, 90, 10, 5, 30, 50, 0]),
        "reasons": {6: "no item carries it"},
        "method": "lift",
        "n_latents": 8,
    }
    return ConceptMap(**(parts | changes))


def names(concepts):
    return [concept.name for concept in concepts]


def test_get_by_exact_name():
    concept = example().get("film noir")
    assert concept.name == "film noir" and concept.n_items == 40
    assert concept.latents.tolist() == [4, 1]
    np.testing.assert_allclose(concept.weights, [0.75, 0.25])
    latents, weights = example().target("film noir")
    assert latents.dtype == np.int32 and weights.dtype == np.float32


@pytest.mark.parametrize("spelling", ["Film-Noir", " FILM  noir ", "film_noir"])
def test_get_whatever_the_spelling(spelling):
    assert example().get(spelling).name == "film noir"
    assert spelling in example()


def test_the_exact_name_wins_then_the_one_on_most_items():
    assert example().get("sci fi").name == "sci fi"
    assert example().get("Sci-Fi").name == "Sci-Fi"
    assert example().get("SCI_FI").name == "Sci-Fi"


def test_a_concept_with_latents_wins_over_an_absent_one_of_the_same_key():
    shadowed = example(names=(*NAMES[:6], "Musical"), counts=np.full(7, 3))
    assert shadowed.get("MUSICAL").name == "musical"


def test_unknown_concepts_name_the_nearest():
    with pytest.raises(UnknownConceptError, match="'film noire' is unknown; nearest: 'film noir'"):
        example().get("film noire")
    with pytest.raises(UnknownConceptError, match="concept 'zzz' is unknown$"):
        example().get("zzz")
    with pytest.raises(UnknownConceptError, match="concept None is unknown"):
        example().get(None)


def test_absent_concepts_say_why():
    with pytest.raises(UnknownConceptError, match="'ghost' cannot be steered: no item carries it"):
        example().get("ghost")
    assert "ghost" not in example()
    assert example().absent == {"ghost": "no item carries it"}


def test_browse_and_len_see_what_can_be_steered():
    by_items = ["Sci-Fi", "musical", "film noir", "noir thriller", "sci fi", "neo-noir"]
    assert names(example().browse()) == by_items
    assert len(example()) == len(list(example())) == 6


def test_search_ranks_equal_then_beginning_then_words():
    found = example(names=("noirish", "anoir", "x noir", "noir", "noirest", "b", "ghost"))
    ranked = ["noir", "noirish", "noirest", "x noir", "anoir"]  # noirish is on more items
    assert names(found.search("NOIR")) == ranked
    assert names(found.search("noir", limit=2)) == ranked[:2]
    assert names(found.browse("noir")) == ranked


def test_search_falls_back_to_spelling():
    assert names(example().search("musicall")) == ["musical"]
    assert example().search("zzzz") == []
    assert names(example().search("  ", limit=2)) == ["Sci-Fi", "musical"]


def test_arrays_and_back(tmp_path):
    numpy_io = pytest.importorskip("safetensors.numpy")
    import json

    arrays, meta = example().to_arrays()
    arrays = numpy_io.load(numpy_io.save(arrays))
    got = ConceptMap.from_arrays(arrays, json.loads(json.dumps(meta)))
    assert got == example()
    assert got != example(method="most_unique") and got != example(counts=np.arange(7))


def damaged(array=None, value=None, **meta_changes):
    arrays, meta = example().to_arrays()
    if array is not None:
        arrays[array] = value
    return arrays, meta | meta_changes


ARRAYS = {
    "offsets falling": ("offsets", np.array([0, 2, 1, 4, 5, 6, 7, 7]), "offsets must rise"),
    "offsets short": ("offsets", np.array([0, 7]), r"offsets must have shape \(8,\), got \(2,\)"),
    "offsets beyond": ("offsets", np.array([0, 2, 3, 4, 5, 6, 7, 9]), "offsets must rise"),
    "latents beyond": ("latents", np.array([4, 1, 0, 2, 3, 5, 8]), "latents must be in"),
    "latents negative": ("latents", np.array([4, 1, 0, 2, 3, 5, -1]), "latents must be in"),
    "latents short": ("latents", np.array([4, 1]), r"weights must have shape \(2,\)"),
    "weights sum": ("weights", np.ones(7), "weights must sum to 1"),
    "weights nan": ("weights", np.full(7, np.nan), "weights must be finite"),
    "weights negative": ("weights", np.array([2, -1, 1, 1, 1, 1, 1.0]), "weights must be finite"),
    "weights dtype": ("weights", np.ones(7, int), "weights must have a dtype"),
    "latents dtype": ("latents", np.ones(7), "latents must have a dtype"),
    "counts": ("counts", np.full(7, -1), "counts must not be negative"),
    "scores": ("scores", np.full(7, np.inf), "scores must be finite"),
}


@pytest.mark.parametrize("array, value, message", ARRAYS.values(), ids=ARRAYS.keys())
def test_damaged_arrays(array, value, message):
    with pytest.raises(ModelFormatError, match=message):
        ConceptMap.from_arrays(*damaged(array, value))


META = {
    "repeated": ({"names": ["a"] * 7}, "names must be distinct"),
    "no text": ({"names": [1, 2, 3, 4, 5, 6, 7]}, "names must be text"),
    "missing reason": ({"reasons": {}}, "reasons must be given"),
    "false reason": ({"reasons": {"6": "x", "1": "y"}}, "reasons must be given"),
    "reasons type": ({"reasons": ["x"]}, "damaged"),
    "reasons key": ({"reasons": {"six": "x"}}, "damaged"),
    "names type": ({"names": 7}, "damaged"),
    "n_latents": ({"n_latents": None}, "damaged"),
}


@pytest.mark.parametrize("changes, message", META.values(), ids=META.keys())
def test_damaged_meta(changes, message):
    with pytest.raises(ModelFormatError, match=message):
        ConceptMap.from_arrays(*damaged(**changes))


@pytest.mark.parametrize("name", ["offsets", "latents", "weights", "scores", "counts"])
def test_missing_array(name):
    arrays, meta = damaged()
    del arrays[name]
    with pytest.raises(ModelFormatError, match=f"must hold '{name}', found none"):
        ConceptMap.from_arrays(arrays, meta)


def test_missing_meta():
    with pytest.raises(ModelFormatError, match="must hold 'names'"):
        ConceptMap.from_arrays(damaged()[0], {})


def test_lookup_needs_no_scipy():
    script = (
        "import sys, cfsae_fast.concepts, cfsae_fast.steering, cfsae_fast.metrics\n"
        "print([name for name in ('scipy', 'torch', 'polars') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_top_is_boosted_and_all_is_reached():
    found = ConceptMap(
        names=("noir",),
        offsets=np.array([0, 3]),
        latents=np.array([5, 2, 7]),
        weights=np.array([0.5, 0.25, 0.25]),
        scores=np.array([1.0]),
        counts=np.array([9]),
        reasons={},
        method="lift",
        n_latents=8,
        top=2,
    )
    latents, weights = found.target("noir")
    assert latents.tolist() == [5, 2]
    np.testing.assert_allclose(weights, [2 / 3, 1 / 3], rtol=1e-6)
    assert found.reach("noir")[0].tolist() == [5, 2, 7]
    again = ConceptMap.from_arrays(*found.to_arrays())
    assert again == found and again.top == 2
    with pytest.raises(UnknownConceptError):
        found.reach("nothing")
