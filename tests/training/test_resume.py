"""A run killed with SIGKILL and resumed ends with the weights of one that never stopped."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from cfsae_fast.errors import ModelFormatError

# Trains one stage; the batch sampler is slowed down so that the kill falls inside an epoch.
SCRIPT = """
import sys, time
import numpy as np, torch
from safetensors.numpy import save_file
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.ops import Rows
from cfsae_fast.training import HeldOut, fit_cfae, fit_sae, samplers

stage, run_dir, delay, resume = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "1"
torch.set_num_threads(1)
rng = np.random.default_rng(0)
rows = Rows(np.arange(0, 505, 5), rng.integers(0, 40, 500).astype(np.int32))
held = HeldOut(samplers.take_rows(rows, np.arange(20)), samplers.take_rows(rows, np.arange(20, 40)))
config = TrainConfig(epochs=6, batch_size=10, lr=0.01, lr_decay="cosine", patience=5)
real = samplers.RowSampler._drawn
samplers.RowSampler._drawn = lambda self, step: time.sleep(delay) or real(self, step)
options = dict(validation=held, run_dir=run_dir, resume=resume)
if stage == "sae":
    quick = TrainConfig(epochs=1, batch_size=50)
    slow, delay = delay, 0
    cfae = fit_cfae(rows, 40, CFAEConfig(d=8), quick)
    delay = slow
    made = fit_sae(cfae, rows, SAEConfig(k=2, n_latents=16, dead_after=100), config, **options)
else:
    made = fit_cfae(rows, 40, CFAEConfig(model=stage, d=8, hidden=12), config, **options)
save_file({name: one.numpy() for name, one in made.state_dict().items()}, run_dir + ".safetensors")
"""


def start(tmp_path, stage, run_dir, *, delay=0.0, resume=False):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    arguments = [stage, str(run_dir), str(delay), "1" if resume else "0"]
    return subprocess.Popen(
        [sys.executable, str(script), *arguments], stderr=subprocess.PIPE, text=True
    )


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def records(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def kill_in_epoch(process, run_dir, epoch):
    """SIGKILL while `epoch` (counted from 1) is being trained."""
    state, deadline = run_dir / "checkpoint" / "state.json", time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        if state.exists() and json.loads(state.read_text())["epoch"] >= epoch - 1:
            break
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("stage", ["elsa", "multvae", "sae"])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(stage, tmp_path):
    whole = start(tmp_path, stage, tmp_path / "whole")
    killed = start(tmp_path, stage, tmp_path / "killed", delay=0.04)
    kill_in_epoch(killed, tmp_path / "killed", 3)
    assert len(records(tmp_path / "killed")) < 6
    assert not (tmp_path / "killed.safetensors").exists()
    finish(whole)
    finish(start(tmp_path, stage, tmp_path / "killed", resume=True))
    got, want = (load_file(tmp_path / f"{name}.safetensors") for name in ("killed", "whole"))
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].tobytes() == want[name].tobytes(), name
    assert records(tmp_path / "killed") == records(tmp_path / "whole")


def fit(run_dir, *, resume=False, changes=None, rows_seed=0, epochs=2):
    from cfsae_fast.config import SAEConfig, TrainConfig
    from cfsae_fast.training import fit_sae

    array = np.random.default_rng(rows_seed).standard_normal((40, 4)).astype(np.float32)
    training = TrainConfig(**{"epochs": epochs, "batch_size": 8, "lr": 0.01} | (changes or {}))
    config = SAEConfig(k=2, n_latents=8)
    return fit_sae(array, None, config, training, run_dir=run_dir, resume=resume)


def test_a_finished_run_resumes_to_itself_and_a_longer_one_goes_on(tmp_path):
    done = fit(tmp_path / "run", epochs=2)
    again = fit(tmp_path / "run", epochs=2, resume=True)
    assert torch.equal(done.encoder, again.encoder)
    longer, whole = fit(tmp_path / "run", epochs=4, resume=True), fit(tmp_path / "b", epochs=4)
    assert torch.equal(longer.encoder, whole.encoder)
    assert not torch.equal(longer.encoder, done.encoder)
    assert [one["epoch"] for one in records(tmp_path / "run")] == [1, 2, 3, 4]


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
