"""Floor 1: every number a user may choose, as frozen dataclasses that check themselves.

A config is passed explicitly and saved with the model; nothing reads the environment.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

CFAE_MODELS = ("elsa", "multvae", "multdae")
SAE_KINDS = ("topk", "batchtopk", "basic")
COMPATS = ("corrected", "paper")
PRECISIONS = ("auto", "fp32", "bf16", "int16")
HISTORIES = ("auto", "mixed", "part", "full")

# ELSA overfits within 10 epochs where users are few (anime-5k, d 1024: best validation nDCG@20
# 0.463 without, 0.475 with 0.3, 0.472 with 0.5, which takes longer); the VAEs' is the paper's.
DEFAULT_DROPOUT = {"elsa": 0.3, "multvae": 0.5, "multdae": 0.5}
# Of the basic SAE: ELSA d 256, L 2048: about 70 latents a row and 92 % of the nDCG kept; 8e-3: 30
# and 83 %.
DEFAULT_L1 = 3e-3
# Users per latent below which the SAE trains on mixed parts of histories. Below it, embeddings that
# never change are learned by heart (anime-5k, 1.8 users per latent: 86.7 % of nDCG kept on whole
# histories, 93.8 % on parts, 96 % on mixed parts of two users); drawing them costs gather-sums.
PART_HISTORIES_BELOW = 16

# What an SAE is given where rows are few (PART_HISTORIES_BELOW): docs/findings.md has what each
# does. noise: of what its encoder sees, in each row's std. spare: share of latents trained on top
# of L, of which the L that fire most stay.
FEW_ROWS: dict[str, float] = {"wide_loss": 0.25, "noise": 0.3, "spare": 0.5, "wake": True}
WIDE_SHARE = 0.7  # of the training's steps, over which wide_loss falls to 0

# Measured on anime-5k (3,654 training users, 2 cores), test nDCG@20: ELSA d 256 0.468 in 20 s and
# d 1024 0.470 in 27 s (closed-form EASE 0.492); small batches, as there are few users; patience 4,
# as overfitting shows within epochs. The VAEs overfit without decay (d 128: MultVAE 0.369 and
# MultDAE 0.389 in 45 s with it).
CFAE_TRAINING: dict[str, dict[str, Any]] = {
    "elsa": {"epochs": 40, "batch_size": 256, "lr": 2e-3, "patience": 4},
    "multvae": {"epochs": 60, "batch_size": 128, "lr": 1e-3, "weight_decay": 1.0, "patience": 5},
    "multdae": {"epochs": 60, "batch_size": 128, "lr": 1e-3, "weight_decay": 1.0, "patience": 5},
}
# 6,000 steps, for data sets of many users; for some thousands 2,000 do as well (docs/findings.md).
SAE_TRAINING: dict[str, Any] = {
    "epochs": 24,
    "steps_per_epoch": 250,
    "batch_size": 256,
    "lr": 1e-3,
    "lr_decay": "cosine",
    "patience": 0,
}


def check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class CFAEConfig:
    """The collaborative-filtering autoencoder.

    model: elsa, multvae or multdae. d: width of the embedding. hidden: width of the tanh layers of
    MultVAE / MultDAE (None: 3 d, as the paper). dropout: share of a row's items that training hides
    from the encoder and asks of the decoder (None: DEFAULT_DROPOUT of the model). item_lengths: of
    ELSA's item vectors, learned or all 1 as published (anime-5k, d 256: validation nDCG@20 0.475
    learned, 0.439 unit, as a unit vector cannot say that an item is rare). beta_max, anneal_steps:
    KL weight of MultVAE, linear from 0 (NLL + beta KL, both summed). normalize_input: MultVAE /
    MultDAE scale the row to length 1 (the MultVAE paper does, "From Knots to Knobs" not; ELSA's
    scores do not depend on it).
    """

    model: Literal["elsa", "multvae", "multdae"] = "elsa"
    d: int = 256
    hidden: int | None = None
    dropout: float | None = None
    item_lengths: Literal["learned", "unit"] = "learned"
    beta_max: float = 0.2
    anneal_steps: int = 2_000
    normalize_input: bool = True

    def __post_init__(self) -> None:
        check(self.model in CFAE_MODELS, f"model must be one of {CFAE_MODELS}, got {self.model!r}")
        check(self.d >= 1, f"d must be at least 1, got {self.d}")
        check(
            self.hidden is None or self.hidden >= 1,
            f"hidden must be None or at least 1, got {self.hidden}",
        )
        check(
            self.dropout is None or 0 <= self.dropout < 1,
            f"dropout must be None or in [0, 1), got {self.dropout}",
        )
        check(
            self.item_lengths in ("learned", "unit"),
            f"item_lengths must be 'learned' or 'unit', got {self.item_lengths!r}",
        )
        check(self.beta_max >= 0, f"beta_max must not be negative, got {self.beta_max}")
        check(self.anneal_steps >= 1, f"anneal_steps must be at least 1, got {self.anneal_steps}")

    @property
    def input_dropout(self) -> float:
        """Share of the input hidden in training, with the default of the model filled in."""
        return DEFAULT_DROPOUT[self.model] if self.dropout is None else self.dropout


@dataclass(frozen=True)
class SAEConfig:
    """The sparse autoencoder between encode and decode.

    kind: topk (k per row), batchtopk (k per row on average, stored threshold at inference) or
    basic (L1; k is not used). k: latents kept. n_latents: L; None means 8 d. l1: weight of the L1
    term, sum of a row's activations (None: 0, for basic DEFAULT_L1). loss: l2 (mean square) or
    cosine, against the embedding itself. standardize: remove each row's mean and std.
    aux_coefficient, k_aux: AuxK revival of dead latents (k_aux None: d / 2). dead_after: samples
    without firing after which a latent counts as dead.
    wide_loss, noise, spare, wake: None means FEW_ROWS where fit_sae has fewer than
    PART_HISTORIES_BELOW rows per latent and compat is "corrected", else 0; the first two for ELSA
    alone, whose embeddings are sums of items. wide_loss (topk): weight of the loss of 4 k latents,
    beside that of k; it falls to 0 over the first WIDE_SHARE of the steps. noise: standard
    deviation of what is added to the embedding that the encoder sees in training, in each row's
    own; what it should give is without. spare: L (1 + spare) latents are trained, and the L stay
    that fire for most rows. wake: in the end the bias of a latent that no row fires is raised until
    one does (training.waking).
    histories: what fit_sae trains on: "full"
    embeds every user once, "part" draws a fresh random part of a user's items at every step, each
    item kept with one probability per row, uniform in [min_history_share, 1]; "mixed" mostly unions
    of such parts of two users (training.samplers.EmbeddingSampler); "auto" is mixed where there are
    fewer than PART_HISTORIES_BELOW users per latent, else full. compat "paper" reproduces the
    published objective with its in-place standardisation, for comparisons only.
    """

    kind: Literal["topk", "batchtopk", "basic"] = "topk"
    k: int = 32
    n_latents: int | None = None
    loss: Literal["l2", "cosine"] = "l2"
    l1: float | None = None
    standardize: bool = True
    aux_coefficient: float = 1 / 32
    k_aux: int | None = None
    dead_after: int = 20_000
    wide_loss: float | None = None
    noise: float | None = None
    spare: float | None = None
    wake: bool | None = None
    histories: Literal["auto", "mixed", "part", "full"] = "auto"
    min_history_share: float = 0.5
    compat: Literal["corrected", "paper"] = "corrected"

    def __post_init__(self) -> None:
        check(self.kind in SAE_KINDS, f"kind must be one of {SAE_KINDS}, got {self.kind!r}")
        check(self.k >= 1, f"k must be at least 1, got {self.k}")
        check(
            self.n_latents is None or self.n_latents >= 1,
            f"n_latents must be None or at least 1, got {self.n_latents}",
        )
        check(
            self.n_latents is None or self.kind == "basic" or self.k <= self.n_latents,
            f"k must be in [1, n_latents={self.n_latents}], got {self.k}",
        )
        check(self.loss in ("l2", "cosine"), f"loss must be 'l2' or 'cosine', got {self.loss!r}")
        check(self.l1 is None or self.l1 >= 0, f"l1 must not be negative, got {self.l1}")
        check(
            self.aux_coefficient >= 0,
            f"aux_coefficient must not be negative, got {self.aux_coefficient}",
        )
        check(
            self.k_aux is None or self.k_aux >= 1,
            f"k_aux must be None or at least 1, got {self.k_aux}",
        )
        check(self.dead_after >= 1, f"dead_after must be at least 1, got {self.dead_after}")
        for name, most in (("wide_loss", math.inf), ("noise", math.inf), ("spare", 4.0)):
            value = getattr(self, name)
            check(
                value is None or (0 <= value <= most and value < math.inf),
                f"{name} must be None or in [0, {most:g}], got {value}",
            )
        check(self.wake in (None, False, True), f"wake must be None or a bool, got {self.wake!r}")
        for name in FEW_ROWS:
            value = getattr(self, name)
            check(
                not value or self.compat == "corrected",
                f"{name} must be None or 0 with compat 'paper', got {value}",
            )
        check(
            not self.wide_loss or self.kind == "topk",
            f"wide_loss must be None or 0 with kind {self.kind!r}, got {self.wide_loss}",
        )
        check(
            self.histories in HISTORIES,
            f"histories must be one of {HISTORIES}, got {self.histories!r}",
        )
        check(
            0 < self.min_history_share <= 1,
            f"min_history_share must be in (0, 1], got {self.min_history_share}",
        )
        check(self.compat in COMPATS, f"compat must be one of {COMPATS}, got {self.compat!r}")

    @property
    def l1_weight(self) -> float:
        """Weight of the L1 term, with the default of the kind filled in."""
        if self.l1 is not None:
            return self.l1
        return DEFAULT_L1 if self.kind == "basic" else 0.0


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training.

    epochs: upper bound. steps_per_epoch: None means one pass over the rows. patience: epochs
    without a better validation value before stopping (0: never stop early, and an SAE keeps its
    last epoch instead of its best). monitor: the validation value, nDCG@20 of held-out items or the
    loss. betas, weight_decay: of Adam (decoupled decay). lr_decay: cosine falls to 0 at the last
    step of `epochs`. precision: fp32, bf16 (autocast: products of bf16, sums of fp32), int16 (ELSA
    on a CPU: whole numbers of 16 bits and exact sums, ops.tiles.int16_product_), or auto: bf16 on a
    GPU that computes it, for ELSA the fastest of the three on this CPU.
    """

    epochs: int = 50
    batch_size: int = 256
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    lr_decay: Literal["constant", "cosine"] = "constant"
    patience: int = 10
    monitor: Literal["ndcg", "loss"] = "ndcg"
    steps_per_epoch: int | None = None
    seed: int = 42
    device: str = "cpu"
    precision: Literal["auto", "fp32", "bf16", "int16"] = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        check(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        check(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        check(self.lr > 0, f"lr must be positive, got {self.lr}")
        check(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"betas must be two numbers in [0, 1), got {self.betas}",
        )
        check(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        check(
            self.lr_decay in ("constant", "cosine"),
            f"lr_decay must be 'constant' or 'cosine', got {self.lr_decay!r}",
        )
        check(self.patience >= 0, f"patience must not be negative, got {self.patience}")
        check(
            self.monitor in ("ndcg", "loss"),
            f"monitor must be 'ndcg' or 'loss', got {self.monitor!r}",
        )
        check(
            self.steps_per_epoch is None or self.steps_per_epoch >= 1,
            f"steps_per_epoch must be None or at least 1, got {self.steps_per_epoch}",
        )
        check(
            self.precision in PRECISIONS,
            f"precision must be one of {PRECISIONS}, got {self.precision!r}",
        )
        check(
            self.precision != "int16" or self.device.startswith("cpu"),
            f"precision must be auto, fp32 or bf16 on device {self.device!r}, got 'int16'",
        )

    @classmethod
    def for_cfae(cls, model: str = "elsa", **changes: Any) -> TrainConfig:
        """Defaults of stage 1, by model; `changes` replace single fields."""
        return cls(**{**CFAE_TRAINING[model], **changes})

    @classmethod
    def for_sae(cls, **changes: Any) -> TrainConfig:
        """Defaults of stage 2; `changes` replace single fields."""
        return cls(**{**SAE_TRAINING, **changes})


Config = TypeVar("Config", CFAEConfig, SAEConfig, TrainConfig)


def to_dict(config: CFAEConfig | SAEConfig | TrainConfig) -> dict[str, Any]:
    """Plain JSON-ready dict of a config."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def from_dict(kind: type[Config], values: dict[str, Any], *, where: str = "config") -> Config:
    """A config from a dict such as JSON, YAML or TOML gives.

    Raises:
        ValueError: an unknown key (the message lists the known ones) or a value out of range.
    """
    check(isinstance(values, dict), f"{where} must be a mapping, got {values!r}")
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(known))
    check(not unknown, f"{where} must have keys among {known}, got unknown {unknown}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where} holds a value of the wrong type: {error}") from error
