"""Floor 5: SteerableRecommender, the last line of the story behind one door.

Station: history and knobs -> embedding -> code -> steer -> embedding' -> scores -> top-N.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cfsae_fast import ops, steering
from cfsae_fast.concepts import ConceptMap
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.ids import Id
from cfsae_fast.inference import FoldedTables
from cfsae_fast.ops import Encoded
from cfsae_fast.recommender import answers, calibration, explaining, inputs, pipeline, trust
from cfsae_fast.recommender.answers import Recommendations
from cfsae_fast.recommender.explaining import Explanation
from cfsae_fast.recommender.fitted import Fitted, load, save
from cfsae_fast.recommender.live import LiveProfile
from cfsae_fast.recommender.place import Place

if TYPE_CHECKING:
    from cfsae_fast.data import HoldOut, Interactions, Tags

CHUNK = 1024  # users scored at a time: bounds memory at CHUNK * (d + history), never users * items

FOLD_LIMIT = 8 << 30  # bytes that fold() may take unasked


class SteerableRecommender:
    """A CFAE, an SAE and a ConceptMap: fit it, ask it, turn its knobs, explain it, save it.

    >>> model = SteerableRecommender().fit(interactions, tags)
    >>> ids, scores = model.recommend("user-7", n=10, steer={"film noir": 0.3})

    The constructor only stores settings; everything learned is in `fitted` after `fit`, `wrap` or
    `load`. Serving uses the engine and numpy alone; `fit` and `wrap` import torch.
    """

    def __init__(
        self,
        cfae: CFAEConfig | None = None,
        sae: SAEConfig | None = None,
        *,
        cfae_training: TrainConfig | None = None,
        sae_training: TrainConfig | None = None,
        seed: int = 42,
        device: str = "cpu",
    ) -> None:
        """Settings only; None: defaults. seed: for what the training settings leave open. device:
        where `recommend` answers, and `fit` trains unless its settings name another.
        """
        self.seed, self.device, self._place = seed, device, Place(device)
        self.cfae_config, self.sae_config = cfae, sae
        self.cfae_training, self.sae_training = cfae_training, sae_training
        self._fitted: Fitted | None = None

    # ---- making one -------------------------------------------------------------------------

    def fit(
        self,
        interactions: Interactions,
        tags: Tags | None = None,
        *,
        titles: Any = None,
        validation: HoldOut | None = None,
        run_dir: str | os.PathLike | None = None,
        resume: bool = False,
        progress: bool = False,
    ) -> SteerableRecommender:
        """Train both stages on `interactions` and name the latents with `tags`.

        validation: held-out users for early stopping; None sets a tenth of the users aside.
        run_dir: metrics.jsonl and checkpoints go there; resume: go on from them.

        Raises:
            DataError: the interactions are empty or too few to train on.
            MissingExtraError: torch is not installed (extra "train").
        """
        from cfsae_fast.recommender import fitting

        self._fitted = fitting.fit(
            interactions,
            tags,
            self.cfae_config or CFAEConfig(),
            self.sae_config or SAEConfig(),
            self.cfae_training,
            self.sae_training,
            seed=self.seed,
            device=self.device,
            titles=titles,
            validation=validation,
            run_dir=run_dir,
            resume=resume,
            progress=progress,
        )
        return self

    @classmethod
    def wrap(
        cls,
        user_factors: np.ndarray,
        item_factors: np.ndarray,
        interactions: Interactions | None = None,
        tags: Tags | None = None,
        *,
        sae: SAEConfig | None = None,
        sae_training: TrainConfig | None = None,
        seed: int = 42,
        device: str = "cpu",
        titles: Any = None,
        regularization: float = 1.0,
        progress: bool = False,
    ) -> SteerableRecommender:
        """Steer an existing factor model: scores stay user_factors @ item_factors.T.

        user_factors (U, d), item_factors (I, d). interactions: their rows and columns in the same
        order, for ids and seen items (None: ids 0..n-1, nothing seen). New histories are folded in
        by ridge regression with `regularization` on the item factors.

        Raises:
            DataError: shapes differ, or a factor is NaN or infinite.
        """
        from cfsae_fast.recommender import fitting

        model = cls(None, sae, sae_training=sae_training, seed=seed, device=device)
        model._fitted = fitting.wrap(
            user_factors,
            item_factors,
            interactions,
            tags,
            sae or SAEConfig(),
            sae_training,
            seed=seed,
            device=device,
            titles=titles,
            regularization=regularization,
            progress=progress,
        )
        return model

    def label(self, tags: Tags, *, method: str | None = None, top: int | None = None) -> None:
        """Name the latents anew with `tags`, by position: one map for boost, another for toward."""
        from cfsae_fast.recommender import labelling

        self._fitted = labelling.label(self.fitted, tags, method=method, top=top)

    def save(self, path: str | os.PathLike) -> Path:
        """Write a directory of JSON and safetensors, in one step.

        Raises:
            ModelFormatError: `path` holds something else.
        """
        return save(self.fitted, path)

    @classmethod
    def load(cls, path: str | os.PathLike, *, device: str = "cpu") -> SteerableRecommender:
        """Read what `save` wrote; on the CPU that needs numpy and safetensors alone.

        Raises:
            ModelFormatError: foreign, damaged, or written by a newer version.
        """
        return cls.from_fitted(load(path), device=device)

    @classmethod
    def from_fitted(cls, fitted: Fitted, *, device: str = "cpu") -> SteerableRecommender:
        """A recommender around parts made elsewhere."""
        model = cls(device=device)
        model._fitted = fitted
        return model

    def fold(self, limit_bytes: int = FOLD_LIMIT) -> SteerableRecommender:
        """Multiply out the model's linear ends, for serving: the same answers, sooner.

        The tables take `FoldedTables.bytes_needed`, about 2 * items * latents bytes; `save` writes
        them beside the model, and `load` maps them into memory, shared by all processes. Of MultVAE
        and MultDAE the decoder's first layer folds: reconstructed scores differ in their last bits.

        Raises:
            ValueError: more than `limit_bytes` are needed, or nothing of the model folds.
        """
        fitted = self.fitted
        needed = FoldedTables.bytes_needed(fitted.cfae, fitted.sae)
        if needed > limit_bytes:
            raise ValueError(
                f"limit_bytes must be at least {needed:,} to fold {len(fitted.item_ids):,} items "
                f"x {fitted.sae.n_latents:,} latents, got {limit_bytes:,}; raise it, or serve "
                "the model unfolded"
            )
        self._fitted = replace(fitted, folded=FoldedTables.build(fitted.cfae, fitted.sae))
        return self

    def unfold(self) -> SteerableRecommender:
        """Forget the folded tables."""
        self._fitted = replace(self.fitted, folded=None)
        return self

    # ---- asking it --------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        n: int = 10,
        *,
        histories: Any = None,
        steer: Any = None,
        mode: str = "residual",
        exclude_seen: bool = True,
        allow: list[Id] | None = None,
        deny: list[Id] | None = None,
        unknown: str = "error",
        frame: bool = False,
        threads: int = 0,
    ) -> Any:
        """Top-N items for stored users or for histories, steered or not.

        Args:
            users: one external user id, or several. Or instead:
            histories: one list of item ids, a list of such lists, or a scipy CSR of positions. An
                empty history is served from the mean training user.
            n: how many; beyond the catalogue the rest is padding.
            steer: {"film noir": 0.3, "horror": -1}, "toward:film noir=0.3, -horror", turns such as
                `toward("film noir", 0.3)`, or a list with one of these (or None) for every row.
            mode: "residual" (no knob turned: exactly the base model) or "reconstruct".
            allow, deny: item ids that alone may, or may not, be recommended.
            unknown: "error", or "ignore" to leave unknown history items out.
            frame: a polars frame (user, rank, item, title, score) instead.

        Returns:
            Recommendations(ids, scores), best first; padding has score -inf.

        Raises:
            UnknownIdError, UnknownConceptError, DataError, ValueError: naming the argument.
        """
        inputs.check_n(n)
        pipeline.check_mode(mode)
        request = self._request(users, histories, unknown)
        allowed = inputs.allowed_mask(allow, deny, self.fitted.item_ids)
        turns = steering.per_row(steer, len(request.rows.offsets) - 1)
        options = {"mode": mode, "exclude_seen": exclude_seen, "allowed": allowed}
        turns = calibration.settled(self.fitted, request, turns, n, **options)
        parts = []
        for first in range(0, len(turns), CHUNK):
            part = inputs.take(request, first, first + CHUNK)
            wishes = turns[first : first + CHUNK]
            parts.append(
                self._place.answer(self.fitted, part, wishes, n, threads=threads, **options)
            )
        found = answers.join(parts, n, self.fitted.item_ids)
        if frame:
            return answers.frame(self.fitted, request, found)
        return Recommendations(found.ids[0], found.scores[0]) if request.single else found

    def calibrate(
        self,
        users: Any = None,
        concept: str = "",
        *,
        share: float,
        histories: Any = None,
        n: int = 20,
        mode: str = "residual",
    ) -> calibration.Calibrated:
        """The least boost of `concept` for each user that gives it `share` of their top-n.

        What no boost reaches is said (`reached`), with the best there is. `boost(concept,
        share=0.3)` in a request does the same, for its own list.

        Raises:
            UnknownConceptError, ValueError: no such concept, or the model does not know its items.
        """
        request = self._request(users, histories, "error")
        return calibration.calibrate(self.fitted, request, concept, share=share, n=n, mode=mode)

    def live(
        self,
        user: Id | None = None,
        *,
        history: list[Id] | None = None,
        steer: Any = None,
        mode: str = "residual",
        exclude_seen: bool = True,
    ) -> LiveProfile:
        """One user's profile that stays: add, remove, turn, and top(n) as `recommend` answers."""
        request = self._request(user, None if history is None else [history], "error")
        return LiveProfile(self.fitted, request, steer, mode=mode, exclude_seen=exclude_seen)

    def embed(self, users: Any = None, *, histories: Any = None) -> np.ndarray:
        """Dense user vectors (B, d)."""
        return pipeline.embed(self.fitted, self._request(users, histories, "error"))

    def encode(self, users: Any = None, *, histories: Any = None) -> Encoded:
        """Sparse codes (B, k) of users, and their stats."""
        return self.fitted.sae.encode(self.embed(users, histories=histories))

    def explain(
        self,
        user: Id | None = None,
        item: Id | None = None,
        *,
        history: list[Id] | None = None,
        steer: Any = None,
        mode: str = "residual",
        top: int | None = None,
    ) -> Explanation:
        """Why `item` has its score: shares that sum to it (linear decoders: ELSA, factor models).

        top: keep only the `top` largest shares of latents and of the history (by absolute value);
        the sum then needs all of them, so leave it None to check.

        Raises:
            ValueError: the decoder is not linear (MultVAE, MultDAE), or item is missing.
        """
        fitted = self.fitted
        pipeline.check_mode(mode)
        if fitted.cfae.decoder_layers:
            raise ValueError(
                f"explain must have a linear decoder (elsa or a factor model), got "
                f"{fitted.cfae.kind}; its scores are no sum over latents"
            )
        if item is None:
            raise ValueError("item must be an item id, got None")
        request = self._request(user, None if history is None else [history], "error")
        at = int(fitted.item_ids.index([item])[0])
        embedding = pipeline.embed(fitted, request)
        encoded = fitted.sae.encode(embedding)
        knobs = pipeline.knobs_of(fitted, steering.per_row(steer, 1), encoded, embedding)
        code = encoded.code
        if knobs is not None:
            code = ops.steer(code, knobs, n_latents=fitted.sae.n_latents)
        bias = fitted.cfae.item_bias
        split = explaining.split_score(
            fitted.sae,
            fitted.cfae.items[at],
            0.0 if bias is None else float(bias[at]),
            embedding[0],
            encoded,
            Encoded(code, encoded.stats),
            residual=mode == "residual",
        )
        return explaining.explanation(fitted, at, split, request.rows.items, top=top)

    # ---- looking into it --------------------------------------------------------------------

    @property
    def fitted(self) -> Fitted:
        """The learned parts.

        Raises:
            RuntimeError: nothing was fitted or loaded yet.
        """
        if self._fitted is None:
            raise RuntimeError("the recommender must be fitted first; call fit(), wrap() or load()")
        return self._fitted

    @property
    def concept_map(self) -> ConceptMap:
        """Concept -> latents.

        Raises:
            ValueError: the model was fitted without tags.
        """
        return pipeline.concepts_of(self.fitted)

    def concepts(self, search: str | None = None) -> list[Any]:
        """The concepts one can steer with, those that match `search` where it is given."""
        return self.concept_map.browse(search)

    def find_latents(self, attribute: np.ndarray, *, top: int = 5) -> list[Any]:
        """The latents that best tell an attribute of items (I,), bool or real: `trust.Found`s."""
        return trust.find_latents(self.fitted, attribute, top=top)

    def __repr__(self) -> str:
        if self._fitted is None:
            return "SteerableRecommender(not fitted)"
        fitted = self._fitted
        concepts = 0 if fitted.concepts is None else len(fitted.concepts)
        return (
            f"SteerableRecommender({fitted.cfae.kind}, {len(fitted.user_ids)} users, "
            f"{len(fitted.item_ids)} items, d={fitted.sae.d}, "
            f"{fitted.sae.n_latents} latents, {concepts} concepts)"
        )

    # ---- steps of the story -----------------------------------------------------------------

    def _request(self, users: Any, histories: Any, unknown: str) -> inputs.Request:
        fitted = self.fitted
        if (users is None) == (histories is None):
            raise ValueError("users or histories must be given, and not both")
        if histories is not None:
            return inputs.of_histories(histories, fitted.item_ids, unknown=unknown)
        return inputs.of_users(users, fitted.user_ids, fitted.histories)
