"""Floor 5: names for latents from a language model at any OpenAI-compatible URL; off by default.

Station: stage 3, for latents that no tag names. The titles of a latent's strongest items leave the
machine; nothing else does. Only the standard library is needed.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence

import numpy as np

from cfsae_fast.errors import DataError
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.labelling import item_codes

ITEMS = 12  # titles of a latent that are shown
TIMEOUT_S = 60.0
LONGEST = 60  # characters of a name
_ASK = (
    "Below are the items that one hidden dimension of a recommender responds to most. Answer with "
    "a name of at most four words for what they have in common, lower case, nothing else. If they "
    "have nothing in common, answer: none\n\n"
)


def name_latents(
    fitted: Fitted,
    *,
    url: str,
    model: str,
    key: str | None = None,
    latents: Sequence[int] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[int, str]:
    """Ask POST {url}/chat/completions for a name of each latent; what was answered, by latent.

    latents: which (None: those that fire for some item and have no name yet). key: sent as bearer
    token where given. Latents for which the model says "none" are left out.

    Raises:
        DataError: the model has no titles, or the server does not answer as OpenAI's would.
    """
    if fitted.titles is None:
        raise DataError("the model must have titles to ask for names, got none; fit with titles=")
    codes = item_codes(fitted)
    if latents is None:
        alive = np.unique(codes.indices[codes.indices >= 0]).tolist()
        latents = [one for one in alive if one not in fitted.latent_names]
    found = {}
    for latent in latents:
        strength = np.where(codes.indices == latent, codes.values, 0).sum(axis=1)
        best = np.argsort(-strength, kind="stable")[:ITEMS]
        titles = [str(fitted.titles[at]) for at in best if strength[at] > 0]
        if titles:
            name = _asked(url, model, key, "\n".join(titles), timeout_s)
            if name and name != "none":
                found[int(latent)] = name
    return found


def _asked(url: str, model: str, key: str | None, titles: str, timeout_s: float) -> str:
    body = {
        "model": model,
        "temperature": 0,
        "max_tokens": 20,
        "messages": [{"role": "user", "content": _ASK + titles}],
    }
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        f"{url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            told = json.load(answer)["choices"][0]["message"]["content"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{url} must answer as an OpenAI-compatible server, got {error}") from error
    first = str(told).strip().splitlines()[0] if str(told).strip() else ""
    return " ".join(first.lower().strip(" .\"'").split())[:LONGEST]
