"""Floor 0: what this package raises: each error names argument, want, got and cure."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from types import ModuleType


class DataError(ValueError):
    """Interactions, tags or files that cannot be what they claim to be."""


class UnknownIdError(ValueError):
    """An external id that the model or the data set has never seen."""


class UnknownConceptError(ValueError):
    """A concept without an entry in the ConceptMap; the message names the nearest ones."""


class ModelFormatError(ValueError):
    """A directory that is not a saved model, or one that is damaged or too new."""


class MissingExtraError(ImportError):
    """An optional dependency that the call needs is not installed."""


def require_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or say which extra of this package brings it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {module.split('.')[0]!r}; "
            f"install it with: pip install 'cfsae-fast[{extra}]'"
        ) from error


def did_you_mean(word: str, known: list[str], *, count: int = 3) -> str:
    """'; nearest: ...' with up to `count` close matches of `word`, or an empty string."""
    near = get_close_matches(word, known, n=count, cutoff=0.6)
    return f"; nearest: {', '.join(repr(match) for match in near)}" if near else ""
