"""Floor 3: MultVAE and MultDAE, autoencoders with a multinomial likelihood (Liang et al. 2018).

Station: CFAE.encode and CFAE.decode, one tanh layer on each side of the embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cfsae_fast import ops
from cfsae_fast.config import CFAEConfig
from cfsae_fast.inference import CFAENetwork, Layer
from cfsae_fast.models.cfae import CFAE, thin, to_numpy
from cfsae_fast.models.item_head import entries, multinomial_head, row_norms
from cfsae_fast.ops.containers import Rows

# Of the first layer, where rows have length 1: Xavier's spread over (I, h) leaves tanh with inputs
# of 0.01, and Adam needs hundreds of epochs to grow them (anime-5k, MultVAE, d 128, 40 epochs:
# test nDCG@20 0.33 with Xavier, 0.37 with 0.5).
FIRST_STD = 0.5


class MultDAE(CFAE):
    """embedding = W2 tanh(W1 x' + b1) + b2; scores = W4 tanh(W3 embedding + b3) + b4.

    x' is the row, scaled to length 1 where config.normalize_input says so, thinned by dropout in
    training. Loss: mean over rows of -sum_i x_i log softmax(scores)_i (arXiv 1802.05814, eq. 2).
    item_weight = W1^T (I, h), items = W4 (I, h); h = config.hidden or 3 d.
    """

    kind = "multdae"

    def __init__(self, n_items: int, config: CFAEConfig, *, generator: torch.Generator) -> None:
        super().__init__(n_items, config)
        hidden = config.hidden or 3 * config.d
        first = torch.empty(n_items, hidden).normal_(std=FIRST_STD, generator=generator)
        self.item_weight = nn.Parameter(
            first if config.normalize_input else _xavier(n_items, hidden, generator)
        )
        self.first_bias = nn.Parameter(torch.zeros(hidden))
        self.to_embedding = _linear(hidden, config.d, generator)
        self.from_embedding = _linear(config.d, hidden, generator)
        last = torch.empty(n_items, hidden).normal_(std=hidden**-0.5, generator=generator)
        self.items = nn.Parameter(last)
        self.item_bias = nn.Parameter(torch.zeros(n_items))

    def encode(self, rows: Rows) -> Tensor:
        return self.to_embedding(self._first_layer(rows))

    def decode(self, embedding: Tensor) -> Tensor:
        return self.to_items(embedding) @ self.items.T + self.item_bias

    def to_items(self, embedding: Tensor) -> Tensor:
        return torch.tanh(self.from_embedding(embedding).to(self.items.dtype))

    def loss(
        self, rows: Rows, *, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        embedding = self.to_embedding(self._first_layer(rows, generator))
        loss = self._likelihood(embedding, rows)
        return loss, {"loss": loss.detach()}

    def network(self) -> CFAENetwork:
        return CFAENetwork(
            kind=self.kind,
            item_weight=to_numpy(self.item_weight),
            first_bias=to_numpy(self.first_bias),
            first_activation="tanh",
            encoder_layers=(_layer(self.to_embedding, "none"),),
            decoder_layers=(_layer(self.from_embedding, "tanh"),),
            items=to_numpy(self.items),
            item_bias=to_numpy(self.item_bias),
            normalize_input=self.config.normalize_input,
        )

    def _first_layer(self, rows: Rows, generator: torch.Generator | None = None) -> Tensor:
        scale = torch.ones(len(rows.offsets) - 1, device=rows.items.device)
        if self.config.normalize_input:
            listed = entries(rows)
            norms = row_norms(listed.value, listed.row, len(scale))
            scale = 1 / torch.where(norms > 0, norms, torch.ones_like(norms))
        if generator is not None and self.training:
            scale = scale / (1 - self.config.input_dropout)
            rows = thin(rows, self.config.input_dropout, generator)
        summed = ops.encode_rows(rows, self.item_weight)
        return torch.tanh(summed * scale[:, None] + self.first_bias)

    def _likelihood(self, embedding: Tensor, rows: Rows) -> Tensor:
        hidden = self.to_items(embedding)
        return multinomial_head(hidden, self.items, self.item_bias, entries(rows)).mean()


class MultVAE(MultDAE):
    """As MultDAE with a Gaussian embedding: mu = to_embedding, log variance a second linear layer.

    Training draws z = mu + eps exp(logvar / 2) (eval mode: z = mu) and adds
    beta KL(N(mu, exp(logvar)) || N(0, 1)), both terms summed per row; beta rises linearly to
    config.beta_max in config.anneal_steps steps.
    The embedding that the SAE sees and serving uses is mu.
    """

    kind = "multvae"

    def __init__(self, n_items: int, config: CFAEConfig, *, generator: torch.Generator) -> None:
        super().__init__(n_items, config, generator=generator)
        self.to_log_variance = _linear(len(self.first_bias), config.d, generator)

    def loss(
        self, rows: Rows, *, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = self._first_layer(rows, generator)
        mean = self.to_embedding(hidden).to(hidden.dtype)  # autocast answers in bf16
        log_variance = self.to_log_variance(hidden).to(hidden.dtype)
        sampled = mean
        if self.training:
            noise = torch.randn(mean.shape, generator=generator).to(mean.device)
            sampled = mean + noise * torch.exp(log_variance / 2)
        likelihood = self._likelihood(sampled, rows)
        spread = mean.square() + log_variance.exp() - 1 - log_variance
        divergence = spread.sum(dim=1).mean() / 2
        beta = self.config.beta_max * min(1.0, step / self.config.anneal_steps)
        loss = likelihood + beta * divergence
        logged = {"loss": loss, "likelihood": likelihood, "divergence": divergence}
        return loss, {name: value.detach() for name, value in logged.items()}


def _xavier(n_out: int, n_in: int, generator: torch.Generator) -> Tensor:
    bound = (6 / (n_out + n_in)) ** 0.5
    return torch.empty(n_out, n_in).uniform_(-bound, bound, generator=generator)


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)  # leaves the global generator alone
    with torch.no_grad():
        layer.weight.copy_(_xavier(n_out, n_in, generator))
        layer.bias.zero_()
    return layer


def _layer(linear: nn.Linear, activation: str) -> Layer:
    return Layer(to_numpy(linear.weight), to_numpy(linear.bias), activation)
