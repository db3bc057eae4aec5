"""A random model as tensors, its folded tables, and a batch of histories."""

from __future__ import annotations

import torch

from cfsae_fast import ops
from cfsae_fast.inference import CFAENetwork, FoldedTables, SAENetwork
from cfsae_fast.ops import Code, FoldedSide, FoldedTable, Rows, Stats


def on_tensors(side: FoldedSide) -> FoldedSide:
    table = FoldedTable(*map(torch.from_numpy, side.table))
    return FoldedSide(table, torch.from_numpy(side.sums), torch.from_numpy(side.shifts), side.norms)


class Model:
    """items (I, d), encoder and dictionary (L, d); rows of B histories, none of them empty."""

    def __init__(self, seed: int, n_rows=3, n_items=90, dim=12, n_latents=70, k=6) -> None:
        chance = torch.Generator().manual_seed(seed)

        def normal(*size: int) -> torch.Tensor:
            return torch.randn(*size, generator=chance)

        self.items = normal(n_items, dim)
        self.encoder, self.dictionary = normal(n_latents, dim), normal(n_latents, dim)
        self.encoder_bias, self.bias, self.item_bias = map(normal, (n_latents, dim, n_items))
        self.k = k
        items = self.items.numpy()
        cfae = CFAENetwork("elsa", items, items, item_bias=self.item_bias.numpy())
        sae = SAENetwork("topk", self.encoder.numpy(), self.encoder_bias.numpy(),
                         self.dictionary.numpy(), self.bias.numpy(), k, k)  # fmt: skip
        self.arrays = FoldedTables.build(cfae, sae)
        self.encode_side = on_tensors(self.arrays.encode_side)
        self.decode_side = on_tensors(self.arrays.decode_side)
        lengths = torch.randint(1, 9, (n_rows,), generator=chance)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        entries = torch.randint(0, n_items, (int(offsets[-1]),), generator=chance)
        self.rows = Rows(offsets, entries.int(), normal(len(entries)))

    @property
    def encoding(self):
        return self.encoder, self.encoder_bias, self.bias, self.k

    def embedding(self) -> torch.Tensor:
        return ops.encode_rows(self.rows, self.items)

    def decoded(self, code: Code, stats: Stats) -> torch.Tensor:
        return ops.sparse_decode(code, self.dictionary, self.bias, stats)

    @property
    def seen(self) -> Rows:
        return self.rows._replace(values=None)
