"""Threads, forks, concurrent callers, instruction sets and build_info."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from op_cases import assert_same, make_rows, reals

from cfsae_fast import ops


@pytest.fixture
def work(rng):
    """A recommendation large enough to wake the pool."""
    embedding, items = reals(rng, 64, 64), reals(rng, 4000, 64)
    return embedding, items, make_rows(rng, 64, 4000)


def answer(embedding, items, seen, threads=2):
    return ops.recommend(embedding, items, 10, seen=seen, threads=threads)


def answer_into(queue, work):
    got = tuple(answer(*work))
    queue.put((got, len(os.listdir("/proc/self/task"))))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_a_forked_child_computes_with_a_pool_of_its_own(work):
    want = answer(*work)  # the parent's pool is awake before the fork
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=answer_into, args=(queue, work)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        got, n_threads = queue.get(timeout=30)
        assert_same(got, tuple(want))
        assert n_threads == 2  # the fork brought one, the child's own pool the other
    for child in children:
        child.join(timeout=30)
        assert child.exitcode == 0
    assert_same(answer(*work), want)


def test_eight_python_threads_get_equal_answers(work, rng):
    requests = [(work[0][:rows], work[1], None) for rows in rng.integers(1, 65, 1000)]
    whole = ops.recommend(*work[:2], 10)
    alone = {rows: ops.recommend(work[0][:rows], work[1], 10, threads=1) for rows in range(1, 65)}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda request: answer(*request), requests))
    for (embedding, _, _), got in zip(requests, found, strict=True):
        assert_same(got, alone[len(embedding)])
    assert_same(alone[64], whole)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_small_work_wakes_no_thread():
    script = """if True:
        import os, numpy as np
        from cfsae_fast import ops
        count = lambda: len(os.listdir("/proc/self/task"))
        before = count()
        one = np.ones((1, 8), np.float32)
        ops.recommend(one, np.ones((100, 8), np.float32), 5, threads=4)
        small = count()
        many = np.ones((64, 64), np.float32)
        ops.recommend(many, np.ones((4000, 64), np.float32), 5, threads=4)
        assert (small, count()) == (before, before + 3), (before, small, count())
    """
    subprocess.run([sys.executable, "-c", script], check=True)


ON_TORCHS_THREADS = """if True:
    import os, numpy as np, torch
    from cfsae_fast import ops
    from cfsae_fast.ops.settings import one_pool
    count = lambda: len(os.listdir("/proc/self/task"))
    torch.set_num_threads(3)
    torch.ones(1 << 22).exp()
    before = count()
    embedding = np.random.default_rng(0).random((64, 64), np.float32)
    items = np.random.default_rng(1).random((4000, 64), np.float32)
    def answer(): return ops.recommend(embedding, items, 5, threads=3)
    with one_pool():
        first = answer()
        assert count() == before, (count(), before)
        child = os.fork()
        if not child:  # OpenMP has no threads here, and would wait for them
            os._exit(not (answer().ids == first.ids).all())
        assert os.waitpid(child, 0)[1] == 0
        before = count()  # numpy's library ends a thread of its own at a fork
    assert (answer().ids == first.ids).all()
    assert count() == before + 2, (count(), before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_pool_borrows_torchs_threads_and_a_forked_child_does_not():
    command = [sys.executable, "-W", "ignore", "-c", ON_TORCHS_THREADS]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"OMP_NUM_THREADS": "3"})


@pytest.fixture
def default_threads():
    yield
    ops.set_threads(0)


def test_set_threads_and_its_default(default_threads):
    import torch

    assert ops.get_threads() == torch.get_num_threads()
    ops.set_threads(3)
    assert ops.get_threads() == 3
    with pytest.raises(ValueError, match="threads must be 0 or more, got -2"):
        ops.set_threads(-2)
    assert ops.get_threads() == 3


def test_build_info_names_what_was_built():
    info = ops.build_info()
    assert {"version", "isa", "isa_used", "cuda", "why", "compiler"} <= set(info)
    assert info["isa"][0] == "baseline" and info["isa_used"] == info["isa"][-1]
    assert info["why"]
    with ops.force_isa("baseline"):
        assert ops.build_info()["isa_used"] == "baseline"
    assert ops.build_info()["isa_used"] == info["isa_used"]


def test_an_instruction_set_the_machine_lacks_is_refused():
    with (
        pytest.raises(ValueError, match="isa must be one of .*, got 'sve9'"),
        ops.force_isa("sve9"),
    ):
        pass


def test_importing_the_ops_brings_no_torch():
    script = """if True:
        import sys, numpy as np
        from cfsae_fast import ops
        ops.recommend(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), 1)
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_arrays_and_tensors_may_be_mixed_where_tensors_lead(rng):
    import torch

    rows, weight = make_rows(rng, 3, 5), reals(rng, 5, 4)
    got = ops.encode_rows(rows, torch.from_numpy(weight))
    assert isinstance(got, torch.Tensor)
    assert_same(got, np.asarray(ops.encode_rows(rows, weight)))


def test_instruction_sets_that_are_masked_are_neither_listed_nor_called():
    script = (
        "import numpy as np; from cfsae_fast import _C, ops\n"
        "x = np.eye(8, dtype='f4'); found = ops.recommend(x, x, 1)\n"
        "info = ops.build_info(); print(info['isa'], info['isa_used'], _C.has_screens())\n"
        "print(found.ids[:, 0].tolist(), len(ops.Screen(x).memory) > 64)\n"
        "try:\n    ops.force_isa('avx2').__enter__()\n"
        "except ValueError as error: print(error)"
    )
    environment = {**os.environ, "CFSAE_ISA": "baseline"}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    assert lines[0] == "['baseline'] baseline False"
    assert lines[1] == "[0, 1, 2, 3, 4, 5, 6, 7] True"
    assert "isa must be one of ['baseline']" in lines[2]
