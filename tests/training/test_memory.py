"""The C library keeps memory while a model trains, and gets its own habits back."""

import ctypes

import pytest

from cfsae_fast.training import memory


class Library:
    def __init__(self):
        self.said = []

    def mallopt(self, which, value):
        self.said.append((which, value))

    def malloc_trim(self, pad):
        self.said.append("trim")


@pytest.mark.parametrize("fails", [False, True])
def test_thresholds_are_raised_and_lowered_again(fails, monkeypatch):
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    try:
        with memory.kept_memory():
            inside = dict(library.said)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert set(inside) == {-1, -3} and min(inside.values()) == 1 << 30
    after = dict(library.said[2:4])
    assert set(after) == {-1, -3} and max(after.values()) < 1 << 30
    assert library.said[4:] == ["trim"]


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with memory.kept_memory():
        pass
