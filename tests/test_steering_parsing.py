"""Steering from text and dicts, as the command line and JSON give it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsae_fast.steering import (
    DEFAULT_ALPHA,
    Turns,
    as_turns,
    boost,
    from_dict,
    from_text,
    only,
    suppress,
    toward,
)


@pytest.mark.parametrize(
    "text, turns",
    [
        ("film noir=0.3, -horror", (boost("film noir", 0.3), suppress("horror"))),
        ("only:anime,-horror", (only("anime"), suppress("horror"))),
        ("film noir", (boost("film noir", DEFAULT_ALPHA),)),
        ("+sci-fi = 1e-1 ,-sci-fi=0.5", (boost("sci-fi", 0.1), suppress("sci-fi", 0.5))),
        ("horror=-0.5", (suppress("horror", 0.5),)),
        ("#889=0.15, -#3", (boost(889, 0.15), suppress(3))),
        ('"a, b = \\"c\\""=0.2, only:"#7"', (boost('a, b = "c"', 0.2), only("#7"))),
        ('"-x"=0.2, -"only:y"', (boost("-x", 0.2), suppress("only:y"))),
        ("only : film noir", (only("film noir"),)),
        ("only you=0.2", (boost("only you", 0.2),)),
        ("toward:film noir=0.3, -horror", (toward("film noir", 0.3), suppress("horror"))),
        ("toward : anime, a=0.1", (toward("anime", DEFAULT_ALPHA), boost("a", 0.1))),
        ('toward:#7=0.2,toward:"#7"=1', (toward(7, 0.2), toward("#7", 1))),
        ("toward home=0.2, toward", (boost("toward home", 0.2), boost("toward", DEFAULT_ALPHA))),
        ('"toward:x"=0.2', (boost("toward:x", 0.2),)),
        ("#metoo, 1980's", (boost("#metoo", DEFAULT_ALPHA), boost("1980's", DEFAULT_ALPHA))),
        ("", ()),
        ("  ", ()),
        ("anime,", (boost("anime", DEFAULT_ALPHA),)),
    ],
)  # fmt: skip
def test_text(text, turns):
    assert from_text(text) == Turns(turns)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a=0.3,,b", "steer must read like .* got ',b' at character 6"),
        ("=0.3", "steer must read like"),
        ("a=", "steer must read like"),
        ("a=b=0.3", "must give 'a' a number, got 'b=0.3'"),
        ("a=much", "must give 'a' a number, got 'much'"),
        ('"a=0.3', "steer must read like"),
        ("a=1.5", r"steer\['a'\] must be in \[-1, 1\], got 1.5"),
        ("a=nan", r"steer\['a'\] must be finite"),
        ("-a=-0.5", r"strength must be in \[0, 1\], got -0.5"),
        ("only:a=0.3", "only:a must have no number"),
        ("-", "steer must read like"),
        ("--a", "steer must read like"),
        ("only:", "steer must read like"),
        ("a 0.3 b = 0.3 c", "steer must read like"),
        ("toward:", "steer must read like .*toward:sci-fi=0.3', got 'toward:'"),
        ("toward:only:a", "steer must read like"),
        ("-toward:a=0.3", "steer must read like"),
        ("toward:a=-0.3", r"strength must be in \[0, 1\], got -0.3"),
        ("toward:a=1.5", r"strength must be in \[0, 1\], got 1.5"),
        ("toward:a=far", "must give 'a' a number, got 'far'"),
    ],
)
def test_bad_text(text, message):
    with pytest.raises(ValueError, match=message):
        from_text(text)


def test_dict():
    wishes = {"film noir": 0.3, "horror": -1, "gore": -0.5, "anime": "only", 7: 0.1, "#8": 0.2}
    want = (
        boost("film noir", 0.3),
        suppress("horror", 1.0),
        suppress("gore", 0.5),
        only("anime"),
        boost(7, 0.1),
        boost(8, 0.2),
    )
    assert from_dict(wishes) == as_turns(wishes) == Turns(want)
    far = {"film noir": {"toward": 0.3}, "#8": {"toward": 0.1}, "anime": 0.2}
    want = (toward("film noir", 0.3), toward(8, 0.1), boost("anime", 0.2))
    assert from_dict(far) == as_turns(far) == Turns(want)
    assert as_turns({}) == as_turns(None) == as_turns([]) == Turns()


def test_a_dict_that_was_read_before_is_read_alike_and_its_equals_are_not():
    assert as_turns({"horror": 1}) is as_turns({"horror": 1})
    with pytest.raises(ValueError, match=r"steer\['horror'\] must be a number, got True"):
        as_turns({"horror": True})  # True == 1
    with pytest.raises(ValueError, match=r"must be a number, got \[\]"):
        as_turns({"horror": []})  # cannot be remembered


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"a": 1.5}, r"steer\['a'\] must be in \[-1, 1\], got 1.5"),
        ({"a": -2}, r"steer\['a'\] must be in \[-1, 1\], got -2"),
        ({"a": float("nan")}, r"steer\['a'\] must be finite, got nan"),
        ({"a": "lots"}, r"steer\['a'\] must be a number, got 'lots'"),
        ({"a": None}, r"steer\['a'\] must be a number, got None"),
        ({"a": True}, r"steer\['a'\] must be a number, got True"),
        ({"": 0.1}, "concept must not be empty"),
        ({"a": {"toward": 1.5}}, r"strength must be in \[0, 1\], got 1.5"),
        ({"a": {"toward": "far"}}, r"steer\['a'\]\['toward'\] must be a number, got 'far'"),
        ({"a": {"towards": 0.3}}, r"must be a number, 'only' or {'toward': strength}, got {'tow"),
        ({"a": {}}, r"must be a number, 'only' or {'toward': strength}, got {}"),
    ],
)
def test_bad_dict(wishes, message):
    with pytest.raises(ValueError, match=message):
        from_dict(wishes)


@given(st.text(min_size=1).filter(str.strip), st.integers(1, 1000))
def test_any_name_can_be_quoted(name, thousandths):
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    assert from_text(f'"{quoted}"={thousandths / 1000}') == Turns([boost(name, thousandths / 1000)])


@given(st.text())
def test_any_text_is_turns_or_a_clear_error(text):
    try:
        from_text(text)
    except ValueError as error:
        assert "must" in str(error)


def test_turns_join_with_plus_and_print_as_written():
    turns = boost("a", 0.1) + suppress("b") + (only("c"),)
    assert turns == Turns([boost("a", 0.1), suppress("b"), only("c")])
    assert isinstance(turns, Turns)
    assert repr(turns).startswith("Boost(concept='a', alpha=0.1) + Suppress")
