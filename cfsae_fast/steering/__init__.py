"""Floor 2: what a user wishes, in words, turned into knobs on latents.

Station: steer. `words` says what can be wished, `parsing` reads it from text and dicts, `algebra`
states the formula and resolves wishes to knobs.
"""

from cfsae_fast.steering.algebra import (
    SUPPRESS_PUSH,
    TOWARD_REACH,
    KnobRow,
    Targets,
    apply,
    knobs_for,
    resolve,
    toward_amounts,
)
from cfsae_fast.steering.parsing import DEFAULT_ALPHA, as_turns, from_dict, from_text, per_row
from cfsae_fast.steering.words import (
    Add,
    Boost,
    Mix,
    Only,
    Scale,
    Suppress,
    Toward,
    Turn,
    Turns,
    boost,
    only,
    suppress,
    toward,
)

__all__ = [
    "DEFAULT_ALPHA",
    "SUPPRESS_PUSH",
    "TOWARD_REACH",
    "Add",
    "Boost",
    "KnobRow",
    "Mix",
    "Only",
    "Scale",
    "Suppress",
    "Targets",
    "Toward",
    "Turn",
    "Turns",
    "apply",
    "as_turns",
    "boost",
    "from_dict",
    "from_text",
    "knobs_for",
    "only",
    "per_row",
    "resolve",
    "suppress",
    "toward",
    "toward_amounts",
]
