"""What a run multiplies in: what auto means, and that a model multiplies so."""

import pytest
import torch

from cfsae_fast import ops
from cfsae_fast.config import CFAEConfig, TrainConfig
from cfsae_fast.models import cosine_head, make_cfae
from cfsae_fast.ops import Rows
from cfsae_fast.training.precision import decided, products

VNNI = ["baseline", "avx2", "avx512", "avx512vnni"]


@pytest.mark.parametrize(
    "found, isa, meant",
    [
        ({"amx_bf16": True, "avx512_bf16": True}, VNNI, "bf16"),
        ({"avx512_bf16": True}, VNNI, "int16"),  # Zen 4: as fast as bf16; Intel without AMX: faster
        ({}, VNNI[:-1], "fp32"),
        (None, VNNI, "int16"),  # an older torch cannot say
        (None, VNNI[:-1], "fp32"),
    ],
)
def test_auto_means_what_the_cpu_is_fastest_at(found, isa, meant, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    if found is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(ops, "build_info", lambda: {"isa": isa})
    for model, its in (("elsa", meant), ("multvae", "fp32"), ("topk", "fp32")):
        assert decided(TrainConfig(), model=model).precision == its
        for precision in ("bf16", "fp32"):
            assert decided(TrainConfig(precision=precision), model=model).precision == precision
    assert decided(TrainConfig(precision="int16"), model="elsa").precision == "int16"


def test_int16_is_refused_where_nothing_multiplies_so():
    with pytest.raises(ValueError, match="precision must be auto, fp32 or bf16 for multvae"):
        decided(TrainConfig(precision="int16"), model="multvae")
    with pytest.raises(ValueError, match="bf16 on device 'cuda:0', got 'int16'"):
        TrainConfig(precision="int16", device="cuda:0")
    with pytest.raises(ValueError, match="precision must be one of .*got 'half'"):
        TrainConfig(precision="half")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int16"])
def test_a_model_multiplies_in_what_was_decided(precision, monkeypatch):
    """Forward and backward, though the backward pass runs outside the context."""
    calls, plain = [], cosine_head.int16_product_

    def counted(*given, **options):
        calls.append(given)
        plain(*given, **options)

    monkeypatch.setattr(cosine_head, "int16_product_", counted)
    model = make_cfae(9, CFAEConfig(d=4), seed=1).train()
    rows = Rows(torch.tensor([0, 2, 5]), torch.tensor([0, 8, 1, 2, 3], dtype=torch.int32))
    with products(TrainConfig(precision=precision)):
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
        loss, _ = model.loss(rows, generator=torch.Generator().manual_seed(0), step=0)
    loss.backward()
    assert len(calls) == (3 if precision == "int16" else 0)
    assert not cosine_head._in_int16.get() and model.directions.grad.abs().sum() > 0


@pytest.mark.parametrize("item_lengths", ["unit", "learned"])
def test_gradients_in_int16_are_those_of_fp32_but_for_rounding(item_lengths):
    """Rows of one item are left out: there an item says of itself what is taken off, and y, which
    is 0 but for rounding in any precision, decides whether the target pulls."""
    torch.manual_seed(0)
    counts = torch.randint(2, 30, (70,))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    items = torch.cat([torch.randperm(600)[:n] for n in counts]).to(torch.int32)
    found = {}
    for precision in ("fp32", "int16"):
        model = make_cfae(
            600, CFAEConfig(d=40, dropout=0.0, item_lengths=item_lengths), seed=1
        ).train()
        with products(TrainConfig(precision=precision)):
            loss, _ = model.loss(
                Rows(offsets, items), generator=torch.Generator().manual_seed(0), step=0
            )
        loss.backward()
        found[precision] = [loss.detach(), *(one.grad for one in model.parameters())]
    assert len(found["fp32"]) == 2 + (item_lengths == "learned")
    pairs = list(zip(*found.values(), strict=True))
    errors = [((exact - rough).norm() / exact.norm()).item() for exact, rough in pairs]
    assert 0 < max(errors) < 5e-4
