"""A run killed with SIGKILL and resumed ends with the weights of one that never stopped."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from cfsae_fast.config import CFAEConfig, TrainConfig
from cfsae_fast.errors import ModelFormatError
from cfsae_fast.ops import Rows
from cfsae_fast.training import fit_cfae

# Trains one stage. Only the run that is to be killed has a process of its own; SLOW slows its
# batches down so that the kill falls inside an epoch.
SCRIPT = """
import sys, time
import numpy as np, torch
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.ops import Rows
from cfsae_fast.training import HeldOut, fit_cfae, fit_sae, samplers

def run(stage, run_dir, resume=False):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows = Rows(np.arange(0, 505, 5), rng.integers(0, 40, 500).astype(np.int32))
    held = HeldOut(*[rows.take(np.arange(a, a + 20)) for a in (0, 20)])
    config = TrainConfig(epochs=6, batch_size=10, lr=0.01, lr_decay="cosine", patience=5)
    options = dict(validation=held, run_dir=run_dir, resume=resume)
    if stage != "sae":
        return fit_cfae(rows, 40, CFAEConfig(model=stage, d=8, hidden=12), config, **options)
    cfae = fit_cfae(rows, 40, CFAEConfig(d=8), TrainConfig(epochs=1, batch_size=50))
    return fit_sae(cfae, rows, SAEConfig(k=2, n_latents=16, dead_after=100), config, **options)
"""
SLOW = """
real = samplers.RowSampler._drawn
samplers.RowSampler._drawn = lambda self, step: time.sleep(0.05) or real(self, step)
run(sys.argv[1], sys.argv[2])
"""


def run(stage, run_dir, *, resume=False):
    names = {}
    exec(SCRIPT, names)
    return names["run"](stage, run_dir, resume=resume)


def records(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def run_and_kill(stage, run_dir, *, epoch):
    """Start a run in a process of its own and SIGKILL it while it trains `epoch`, from 1."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + SLOW, stage, str(run_dir)], stderr=subprocess.PIPE
    )
    state, deadline = run_dir / "checkpoint" / "state.json", time.monotonic() + 120
    while not (state.exists() and json.loads(state.read_text())["epoch"] >= epoch - 1):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("stage", ["elsa", "multvae", "sae"])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(stage, tmp_path):
    run_and_kill(stage, tmp_path / "killed", epoch=3)
    assert 2 <= len(records(tmp_path / "killed")) < 6
    got = run(stage, tmp_path / "killed", resume=True).state_dict()
    want = run(stage, tmp_path / "whole").state_dict()
    for name in want:
        assert got[name].numpy().tobytes() == want[name].numpy().tobytes(), name
    assert records(tmp_path / "killed") == records(tmp_path / "whole")


def fit(run_dir, *, resume=False, changes=None, rows_seed=0, epochs=2, wide_loss=0.0):
    from cfsae_fast.config import SAEConfig, TrainConfig
    from cfsae_fast.training import fit_sae

    array = np.random.default_rng(rows_seed).standard_normal((40, 4)).astype(np.float32)
    training = TrainConfig(**{"epochs": epochs, "batch_size": 8, "lr": 0.01} | (changes or {}))
    config = SAEConfig(k=2, n_latents=8, wide_loss=wide_loss)
    return fit_sae(array, None, config, training, run_dir=run_dir, resume=resume)


def test_a_finished_run_resumes_to_itself_and_a_longer_one_goes_on(tmp_path):
    done = fit(tmp_path / "run", epochs=2)
    again = fit(tmp_path / "run", epochs=2, resume=True)
    assert torch.equal(done.encoder, again.encoder)
    longer, whole = fit(tmp_path / "run", epochs=4, resume=True), fit(tmp_path / "b", epochs=4)
    assert torch.equal(longer.encoder, whole.encoder)
    assert not torch.equal(longer.encoder, done.encoder)
    assert [one["epoch"] for one in records(tmp_path / "run")] == [1, 2, 3, 4]


@pytest.mark.parametrize("falls", [{"wide_loss": 0.25}, {"changes": {"lr_decay": "cosine"}}])
def test_what_falls_until_the_end_makes_another_run_of_a_longer_one(tmp_path, falls):
    fit(tmp_path / "run", epochs=2, **falls)
    with pytest.raises(ValueError, match=r"resume must go on with the run .*epochs: 2 then, 4 now"):
        fit(tmp_path / "run", epochs=4, resume=True, **falls)


def test_resume_without_a_checkpoint_starts(tmp_path):
    assert torch.equal(fit(tmp_path / "a", resume=True).encoder, fit(tmp_path / "b").encoder)


def test_starting_anew_drops_the_metrics_of_before(tmp_path):
    fit(tmp_path / "run", epochs=3)
    fit(tmp_path / "run", epochs=2)
    assert [one["epoch"] for one in records(tmp_path / "run")] == [1, 2]


def test_resuming_another_run_is_refused(tmp_path):
    fit(tmp_path / "run")
    with pytest.raises(ValueError, match=r"resume must go on with the run .*lr: 0.01 then, 0.02"):
        fit(tmp_path / "run", resume=True, changes={"lr": 0.02})
    with pytest.raises(ValueError, match=r"resume must go on with the run .*data"):
        fit(tmp_path / "run", resume=True, rows_seed=1)


def test_a_line_too_many_and_a_torn_line_are_set_right(tmp_path):
    fit(tmp_path / "run", epochs=2)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "step": 15}\n{"epo')
    fit(tmp_path / "run", epochs=3, resume=True)
    assert [one["epoch"] for one in records(tmp_path / "run")] == [1, 2, 3]


def test_a_damaged_checkpoint_is_refused(tmp_path):
    fit(tmp_path / "run")
    weights = tmp_path / "run" / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelFormatError, match="damaged"):
        fit(tmp_path / "run", resume=True)


def test_checkpoints_hold_no_pickle(tmp_path):
    fit(tmp_path / "run")
    suffixes = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".jsonl", ".safetensors"}


def test_a_run_goes_on_in_the_precision_it_began_in(tmp_path, monkeypatch):
    rows = Rows(np.arange(0, 41, 2), np.arange(40, dtype=np.int32) % 9)

    def train(*, able, resume):
        found = {"amx_bf16": able}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
        config = TrainConfig(epochs=1 + resume, monitor="loss")
        fit_cfae(rows, 9, CFAEConfig(d=4), config, run_dir=tmp_path / "run", resume=resume)

    train(able=True, resume=False)
    with pytest.raises(ValueError, match=r"precision: 'bf16' then, '(fp32|int16)' now"):
        train(able=False, resume=True)
    train(able=True, resume=True)
