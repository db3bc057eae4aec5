"""Floor 3: sparse autoencoders on embeddings: topk, batchtopk and basic (L1).

Station: SAE.encode and SAE.decode, the sparse code that steering turns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cfsae_fast import ops
from cfsae_fast.config import SAEConfig
from cfsae_fast.inference import SAENetwork
from cfsae_fast.models.cfae import to_numpy
from cfsae_fast.models.unit_rows import normalize_rows_, project_gradient_, random_directions
from cfsae_fast.ops.containers import PADDING, Code, Encoded, Stats
from cfsae_fast.reference import row_stats

WIDER = 4  # times k: the code of config.wide_loss, as the MultiTopK of Gao et al.
BATCHTOPK_WIDTH = 4  # a row may hold up to 4 k latents, so that its code has a fixed width
THRESHOLD_RATE = 0.01  # of the moving average behind batchtopk's threshold; SAELens' default


class SparseAutoencoder(nn.Module):
    """code = top of relu((u - bias) @ encoder.T + encoder_bias); u' = code @ dictionary + bias.

    u is the embedding (B, d) with each row's mean and std removed (config.standardize), which
    `decode` puts back. encoder, dictionary (L, d), the dictionary's rows (atoms) of length 1;
    encoder_bias (L,); bias (d,) is taken off before the encoder and added after the dictionary.

    Loss, against u itself: mean (u' - u)^2 or mean 1 - cos(u, u'), + l1 * mean_b sum_j code_bj, +
    wide_weight(step) * the same distance of a code of 4 k + aux_coefficient * AuxK (Gao et al.
    2024, arXiv 2406.04093, appendix A.2). In training the encoder sees u under config.noise.
    compat "paper": the published objective, where u' with mean and std put back is compared with u
    without them, no AuxK, independent Kaiming initialisation and bias 0.
    """

    def __init__(self, d: int, config: SAEConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        n_latents = config.n_latents or 8 * d
        if config.kind != "basic" and config.k > n_latents:
            raise ValueError(f"k must be in [1, n_latents={n_latents}], got {config.k}")
        self.d, self.n_latents, self.config = d, n_latents, config
        self.wide_until = math.inf  # a step; who knows how many there are sets it
        self.dictionary = nn.Parameter(random_directions(n_latents, d, generator))
        self.encoder = nn.Parameter(self.dictionary.detach().clone())
        if config.compat == "paper":
            bound = (6 / n_latents) ** 0.5  # METHOD.md 3.1: Kaiming's fan of a (d, L) matrix is L
            with torch.no_grad():
                self.encoder.uniform_(-bound, bound, generator=generator)
        self.encoder_bias = nn.Parameter(torch.zeros(n_latents))
        self.bias = nn.Parameter(torch.zeros(d))
        self.register_buffer("silent_for", torch.zeros(n_latents, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))

    @property
    def width(self) -> int:
        """Slots of a row's code: k; for batchtopk up to 4 k; for basic L."""
        if self.config.kind == "basic":
            return self.n_latents
        slots = BATCHTOPK_WIDTH if self.config.kind == "batchtopk" else 1
        return min(slots * self.config.k, self.n_latents)

    @torch.no_grad()
    def start_from(self, embedding: Tensor) -> None:
        """Set the bias to the mean of a sample of u, from embeddings (n, d); compat paper: 0."""
        if self.config.compat != "paper":
            self.bias.copy_(self._target(embedding, self._stats(embedding)).mean(dim=0))

    def encode(self, embedding: Tensor) -> Encoded:
        """Embedding (B, d) -> code and stats, as at inference (batchtopk: by its threshold)."""
        encoded = self._encode_wide(embedding)
        if self.config.kind == "batchtopk":
            kept = encoded.code.values > self.threshold.to(encoded.code.values.dtype)
            return encoded._replace(code=_keep(encoded.code, kept))
        return encoded

    def decode(self, encoded: Encoded) -> Tensor:
        """Code and stats -> reconstructed embedding (B, d)."""
        return ops.sparse_decode(encoded.code, self.dictionary, self.bias, encoded.stats)

    def loss(
        self, embedding: Tensor, *, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss of a batch (a scalar), and named scalars to log; the batch is not changed.

        In training mode it also counts how long each latent has been silent, and moves
        batchtopk's threshold, and the encoder sees the batch under noise (config.noise), which
        `generator` draws. step: of the training, from 0; only the weight of the wide loss asks.
        """
        seen, wide_weight = self._disturbed(embedding, generator), self.wide_weight(step)
        wide, stats = self._encode_training(seen, wider=wide_weight > 0)
        if seen is not embedding:
            stats = self._stats(embedding)
        code = _narrowed(wide, self.config.k) if wide_weight else wide
        target = self._target(embedding, stats)
        output = ops.sparse_decode(code, self.dictionary, self.bias)
        if self.config.compat == "paper" and stats is not None:
            output = stats.mean[:, None] + stats.std[:, None] * output
        distance = self._distance(output, target)
        loss, l0 = distance, (code.values > 0).sum(dim=1).float().mean()
        if self.config.l1_weight:
            loss = loss + self.config.l1_weight * code.values.sum(dim=1).mean()
        if wide_weight:
            wider = ops.sparse_decode(wide, self.dictionary, self.bias)
            loss = loss + wide_weight * self._distance(wider, target)
        aux, dead = self._aux(seen, (target - output).detach())
        loss = loss + self.config.aux_coefficient * aux
        if self.training:
            self._watch(code)
        logged = {"loss": loss, "distance": distance, "aux": aux, "l0": l0, "dead": dead}
        return loss, {name: value.detach() for name, value in logged.items()}

    def wide_weight(self, step: int) -> float:
        """Of the loss of 4 k: falls linearly from config.wide_loss to 0 at step `wide_until`; 0 in
        eval mode."""
        if not self.training or not self.config.wide_loss:
            return 0.0
        return self.config.wide_loss * max(0.0, 1 - step / self.wide_until)

    def before_step(self) -> None:
        project_gradient_(self.dictionary)

    def after_step(self) -> None:
        normalize_rows_(self.dictionary)

    @torch.no_grad()
    def reduced_to(self, latents: Tensor, config: SAEConfig) -> SparseAutoencoder:
        """A copy with `latents` (n,) alone, in that order, and `config`, which says L = n.

        A row whose code uses kept latents alone has the same code, renumbered, and reconstruction.
        """
        small = SparseAutoencoder(self.d, config, generator=torch.Generator())
        state = self.state_dict()
        per_latent = ("dictionary", "encoder", "encoder_bias", "silent_for")
        small.load_state_dict(state | {name: state[name][latents] for name in per_latent})
        return small.to(self.encoder.device).train(self.training)

    @property
    def floor(self) -> float:
        """What an activation must exceed to be in a row's code, where the code has room."""
        return float(self.threshold) if self.config.kind == "batchtopk" else 0.0

    def preactivations(self, embedding: Tensor, latents: Tensor) -> Tensor:
        """Of the named latents (n,), what relu and the choice of a code are applied to: (B, n)."""
        centred = self._target(embedding, self._stats(embedding)) - self.bias
        return centred @ self.encoder[latents].T + self.encoder_bias[latents]

    def network(self) -> SAENetwork:
        """The weights as numpy arrays (copies), which serve without torch."""
        batchtopk = self.config.kind == "batchtopk"
        return SAENetwork(
            kind=self.config.kind,
            encoder=to_numpy(self.encoder),
            encoder_bias=to_numpy(self.encoder_bias),
            dictionary=to_numpy(self.dictionary),
            bias=to_numpy(self.bias),
            k=self.n_latents if self.config.kind == "basic" else self.config.k,
            width=self.width,
            threshold=float(self.threshold) if batchtopk else None,
            standardize=self.config.standardize,
        )

    def _encode_wide(
        self, embedding: Tensor, precision: str = "exact", width: int | None = None
    ) -> Encoded:
        return ops.topk_encode(
            embedding,
            self.encoder,
            self.encoder_bias,
            self.bias,
            width or self.width,
            standardize=self.config.standardize,
            precision=precision,
        )

    def _disturbed(self, embedding: Tensor, generator: torch.Generator) -> Tensor:
        """Embedding (B, d) and, in training mode, noise of config.noise times each row's std."""
        if not self.config.noise or not self.training:
            return embedding
        drawn = torch.randn(embedding.shape, generator=generator).to(embedding)
        return embedding + self.config.noise * row_stats(embedding).std[:, None] * drawn

    def _encode_training(self, embedding: Tensor, *, wider: bool = False) -> Encoded:
        rough = torch.is_autocast_enabled(embedding.device.type)  # near ties do not matter then
        width = min(WIDER * self.config.k, self.n_latents) if wider else None
        encoded = self._encode_wide(embedding, "bf16" if rough else "exact", width)
        if self.config.kind == "basic":
            return encoded._replace(code=_trim(encoded.code))
        if self.config.kind != "batchtopk":
            return encoded
        values = encoded.code.values
        budget = min(self.config.k * len(values), values.numel())
        if budget == 0:
            return encoded
        smallest = values.detach().flatten().topk(budget, sorted=True).values[-1]
        return encoded._replace(code=_keep(encoded.code, (values >= smallest) & (values > 0)))

    def _stats(self, embedding: Tensor) -> Stats | None:
        return row_stats(embedding) if self.config.standardize else None

    def _target(self, embedding: Tensor, stats: Stats | None) -> Tensor:
        if stats is None:
            return embedding
        return (embedding - stats.mean[:, None]) / stats.std[:, None]

    def _distance(self, output: Tensor, target: Tensor) -> Tensor:
        if self.config.loss == "l2":
            return (output - target).square().mean()
        return (1 - nn.functional.cosine_similarity(output, target, dim=1)).mean()

    def _aux(self, embedding: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """AuxK: what the k_aux most active dead latents leave of the residual, and their number.

        The residual is detached, no bias is added a second time, and the centre is detached: only
        rows of dead latents receive gradient.
        """
        dead = torch.nonzero(self.silent_for >= self.config.dead_after).flatten()
        count = torch.tensor(float(len(dead)), device=residual.device)
        if not len(dead) or not self.config.aux_coefficient or self.config.compat == "paper":
            return torch.zeros((), device=residual.device), count
        k_aux = min(self.config.k_aux or max(1, self.d // 2), len(dead))
        code = ops.topk_encode(
            embedding,
            self.encoder[dead],
            self.encoder_bias[dead],
            self.bias.detach(),
            k_aux,
            standardize=self.config.standardize,
        ).code
        told = ops.sparse_decode(code, self.dictionary[dead])
        scale = residual.square().mean().clamp_min(torch.finfo(residual.dtype).tiny)
        return (told - residual).square().mean() / scale, count

    @torch.no_grad()
    def _watch(self, code: Code) -> None:
        self.silent_for += len(code.indices)
        self.silent_for[code.indices[code.indices != PADDING].long()] = 0
        if self.config.kind == "batchtopk":
            positive = code.values[code.values > 0]
            if len(positive):
                least = positive.min().to(self.threshold.dtype)
                rate = THRESHOLD_RATE if self.threshold > 0 else 1.0
                self.threshold.lerp_(least, rate)


def _keep(code: Code, kept: Tensor) -> Code:
    """`code` with the slots that are not `kept` (a prefix of each row is) turned into padding."""
    indices = torch.where(kept, code.indices, torch.full_like(code.indices, PADDING))
    return Code(indices, torch.where(kept, code.values, torch.zeros_like(code.values)))


def _narrowed(code: Code, k: int) -> Code:
    """The k largest of each row of `code`."""
    return Code(code.indices[:, :k].contiguous(), code.values[:, :k].contiguous())


def _trim(code: Code) -> Code:
    """`code` without the columns that are padding in every row; at least one stays."""
    used = (code.indices != PADDING).sum(dim=1)
    width = max(1, int(used.max())) if len(used) else 1
    return Code(code.indices[:, :width].contiguous(), code.values[:, :width].contiguous())
