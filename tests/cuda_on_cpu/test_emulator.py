"""The emulator itself: each kernel with a planted bug is reported, the right one is not."""

from __future__ import annotations

import ctypes

import building
import pytest

pytestmark = pytest.mark.skipif(not building.has_compiler(), reason="no C++ compiler")

RIGHT, REPORTED, REFUSED = 0, 1, 2
SEEDS = range(25)

REPORTS = {
    "missing_barrier": ("race in shared memory", "read of unwritten shared memory"),
    "missing_second_barrier": ("race in shared memory",),
    "missing_warp_sync": ("race in shared memory", "read of unwritten shared memory"),
    "divergent_barrier": ("divergent __syncthreads",),
    "barrier_after_exit": ("exited",),
    "dynamic_overrun": ("shared memory overrun",),
    "static_overrun": ("outside of its array",),
    "overrun_behind_a_pointer": ("shared memory overrun",),
    "array_overrun": ("outside of its array",),
    "unwritten_read": ("read of unwritten shared memory",),
    "wrong_mask": ("not in its mask",),
    "exited_lane": ("exited lane",),
    "absent_lane": ("deadlock",),
    "missing_wait": ("read of unwritten shared memory",),
    "missing_barrier_after_wait": ("race in shared memory", "read of unwritten shared memory"),
    "copy_over_copy": ("on its way",),
    "device_overrun": ("outside of every allocation",),
    "misaligned_vector": ("misaligned",),
    "misaligned_tile": ("wmma",),
    "beyond_bounds": ("__launch_bounds__",),
    "static_beside_dynamic": ("99 KB",),
    "much_static": ("static shared memory is full",),
}


@pytest.fixture(scope="module")
def planted():
    library = ctypes.CDLL(str(building.build_planted()))
    library.planted_message.restype = ctypes.c_char_p

    def run(name: str, seed: int, on_host: bool = False) -> tuple[int, str]:
        outcome = library.planted_run(name.encode(), ctypes.c_uint64(seed), int(on_host))
        return outcome, library.planted_message().decode()

    return run


@pytest.mark.parametrize("seed", SEEDS)
def test_the_right_kernel_passes_under_every_schedule(planted, seed):
    assert planted("right", seed) == (RIGHT, "")


@pytest.mark.parametrize("name", ["within_bounds", "all_shared_memory"])
def test_a_launch_may_go_to_its_limits(planted, name):
    assert planted(name, 1) == (RIGHT, "")


@pytest.mark.parametrize("name", REPORTS)
def test_a_planted_bug_is_reported_under_every_schedule(planted, name):
    for seed in SEEDS:
        outcome, message = planted(name, seed)
        assert outcome == REPORTED, f"seed {seed}"
        assert any(words in message for words in REPORTS[name]), message


@pytest.mark.parametrize("name", ["too_many_threads", "too_much_shared_memory"])
def test_an_impossible_launch_is_refused(planted, name):
    assert planted(name, 0) == (REFUSED, "")


def test_host_code_that_touches_device_memory_is_reported(planted):
    outcome, message = planted("right", 0, on_host=True)
    assert outcome == REPORTED
    assert "host" in message


def test_a_report_leaves_the_emulator_usable(planted):
    planted("absent_lane", 1)
    assert planted("right", 1) == (RIGHT, "")
