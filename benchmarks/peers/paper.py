"""Peer "paper": the published code's way, dense torch throughout (../shared/reference/METHOD.md).

Written anew from the method's description: dense (B, I) input, dense pre-activations, top-k,
scatter into a dense code, dense decode, dense scores, torch.topk. One difference: seen items get
-inf, not 0, so that its answer can be compared with ours (0 can outrank unseen items); the cost is
the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.problems import ALPHA, LATENT
from cfsae_fast.recommender.fitted import Fitted


class DensePath:
    """Histories and one knob to top-N, mode reconstruct."""

    def __init__(self, fitted: Fitted, n: int) -> None:
        self.items = torch.from_numpy(fitted.cfae.items)
        self.encoder = torch.from_numpy(fitted.sae.encoder)
        self.dictionary = torch.from_numpy(fitted.sae.dictionary)
        self.k, self.n = fitted.sae.k, n
        self.forward = self._forward

    def compiled(self, histories: list[list[int]]) -> DensePath:
        """The same through torch.compile, compiled by a first call.

        Raises:
            ImportError: this machine cannot compile it.
        """
        twin = object.__new__(DensePath)
        twin.__dict__.update(self.__dict__)
        twin.forward = torch.compile(twin._forward)
        try:
            twin(histories)
        except RuntimeError as error:  # dynamo's and inductor's errors are
            raise ImportError(f"torch.compile failed: {str(error).splitlines()[0]}") from error
        return twin

    @torch.inference_mode()
    def __call__(self, histories: list[list[int]]) -> tuple[Tensor, Tensor]:
        rows = torch.zeros(len(histories), len(self.items))
        for row, items in zip(rows, histories, strict=True):
            row[torch.tensor(items)] = 1.0
        return self.forward(rows)

    def _forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        embedding = rows @ self.items
        mean, std = embedding.mean(dim=1, keepdim=True), embedding.std(dim=1, keepdim=True) + 1e-7
        dense = torch.relu((embedding - mean) / std @ self.encoder.T)
        values, indices = dense.topk(self.k, dim=1)
        code = torch.zeros_like(dense).scatter_(1, indices, values)
        total = code.sum(dim=1, keepdim=True)
        code = (1 - ALPHA) * code
        code[:, LATENT] += ALPHA * total[:, 0]
        scores = (mean + std * (code @ self.dictionary)) @ self.items.T
        scores = scores.masked_fill(rows > 0, -torch.inf)
        found = scores.topk(self.n, dim=1)
        return found.indices, found.values


class DenseSAE(torch.nn.Module):
    """The published training step of a TopK SAE: dense code, cosine loss, Adam, unit rows after."""

    def __init__(self, encoder: Tensor, dictionary: Tensor, k: int) -> None:
        super().__init__()
        self.encoder = torch.nn.Parameter(encoder.T.contiguous())
        self.dictionary = torch.nn.Parameter(dictionary.clone())
        self.encoder_bias = torch.nn.Parameter(torch.zeros(len(dictionary)))
        self.bias = torch.nn.Parameter(torch.zeros(dictionary.shape[1]))
        self.k = k

    def loss(self, embedding: Tensor) -> Tensor:
        mean, std = embedding.mean(dim=1, keepdim=True), embedding.std(dim=1, keepdim=True) + 1e-7
        target = (embedding - mean) / std
        dense = torch.relu((target - self.bias) @ self.encoder + self.encoder_bias)
        values, indices = dense.topk(self.k, dim=1)
        code = torch.zeros_like(dense).scatter_(1, indices, values)
        output = code @ self.dictionary + self.bias
        return (1 - torch.nn.functional.cosine_similarity(output, target, dim=1)).mean()

    def step(self, embedding: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = self.loss(embedding)
        loss.backward()
        with torch.no_grad():
            grad, rows = self.dictionary.grad, self.dictionary
            grad -= (grad * rows).sum(dim=1, keepdim=True) * rows
        optimizer.step()
        with torch.no_grad():
            self.dictionary.div_(self.dictionary.norm(dim=1, keepdim=True))
        return loss.detach()


class DenseELSA(torch.nn.Module):
    """The published training step of ELSA: dense rows in, dense scores out, autograd, Adam."""

    def __init__(self, items: Tensor) -> None:
        super().__init__()
        self.items = torch.nn.Parameter(items.clone())

    def step(self, rows: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        unit = torch.nn.functional.normalize(self.items, dim=1)
        scores = torch.relu(rows @ unit @ unit.T - rows)
        normal = torch.nn.functional.normalize
        loss = (normal(scores, dim=1) - normal(rows, dim=1)).square().sum(dim=1).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            self.items.copy_(normal(self.items, dim=1))
        return loss.detach()
