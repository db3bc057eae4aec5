"""How long does an exported model take per request: standard ops, the engine's kernels, Python?

Random networks of the sizes that matter, ELSA + TopK; requests of 75 items and one concept turned,
through IOBinding, other users in turn. Every answer is compared before anything is timed. Folding
pays in mode reconstruct; `--mode residual` shows what is left of it there. Loading and memory are
those of a process of its own, and of two that map the same weights.

2,000 calls of every way and batch take about an hour, most of it batches of 512 by standard ops. A
batch ends after `--seconds`, and `calls=` says how many there were. With `--work DIR`, models and
times stay there and the next run goes on, so that an hour can be had in pieces.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks import record, timing
from benchmarks.answers import require, same_top
from benchmarks.problems import FULL, QUICK, WISH, Sizes, draw_histories, make_fitted
from cfsae_fast import export, ops
from cfsae_fast.recommender import SteerableRecommender

HISTORY, N, TIE = 75, 20, 1e-4
THREADS = 2
CALLS, SECONDS = 2000, 150  # of every way; of a batch size
BURST, SETTLE = 0.25, 0.02  # seconds of one way; that its caches and others' spinning threads get
GRAPHS = tuple(itertools.product(("plain", "custom"), ("dense", "folded")))
PLAIN = "graph=plain dense"
PYTHON = "python folded"


class Exported:
    """One model as two files, dense and folded, with weights beside the graph."""

    def __init__(self, sizes: Sizes, mode: str, folder: Path) -> None:
        self.sizes, self.mode = sizes, mode
        kept = folder / f"model {sizes}"
        if not kept.exists():
            model = SteerableRecommender.from_fitted(make_fitted(sizes))
            model.fold(limit_bytes=20 << 30)
            model.save(kept)
        self.model = SteerableRecommender.load(kept)
        self.files = {}
        for path in ("dense", "folded"):
            to = folder / f"{mode} {sizes}" / f"{path}.onnx"
            if not to.exists():
                options = {"mode": mode, "folded": path == "folded", "external": True}
                export.to_onnx(self.model, to, **options)
            self.files[path] = to

    def case(self, rest: str) -> str:
        return f"ELSA TopK {self.sizes} {self.mode} threads={THREADS} {rest}"

    def loading(self) -> list[dict[str, Any]]:
        """Seconds and memory of a process that opens each graph and answers once."""
        rows = []
        for graph, path in GRAPHS:
            alone = _processes(self.files[path], graph == "custom", 1)[0]
            case = self.case(f"graph={graph} {path}")
            for metric in ("load_s", "rss_mb", "anonymous_mb"):
                rows.append(record.row(case, metric, alone[metric]))
        two = _processes(self.files["folded"], True, 2)
        case = self.case("graph=custom folded processes=2")
        rows.append(record.row(case, "mapped_mb", two[0]["mapped_mb"]))
        rows.append(record.row(case, "mapped_shared_share", two[0]["shared_share"]))
        return rows

    def latency(
        self, batch: int, times: Times, seconds: float, only: Sequence[str] = ("",)
    ) -> list[dict[str, Any]]:
        """p50 and p99 of all ways to answer batches of one size, those of earlier runs included.
        only: words of which a way's name must hold one to be called more than once."""
        many = 64 if batch == 1 else 4
        requests = [draw_histories(self.sizes.n_items, batch, HISTORY, at) for at in range(many)]
        ways = {}
        for graph, path in GRAPHS:
            session = export.open_session(
                self.files[path], custom_ops=graph == "custom", threads=THREADS, verify=False
            )
            ways[f"graph={graph} {path}"] = _bound(session, self.model, requests)
        ways[PYTHON] = [lambda one=one: self._python(one) for one in requests]
        self._check(ways, requests)
        with timing.threads(THREADS):
            going = {name: _in_turn(calls) for name, calls in ways.items()}
            case = f"{self.mode} B={batch}"
            wanted = [name for name in going if any(word in name for word in only)]
            times.gather(case, {name: going[name] for name in wanted}, seconds)
            times.gather(case, going, 0)
        return self._rows(times.of(case), batch)

    def _python(self, histories: list[list[int]]) -> Any:
        return self.model.recommend(histories=histories, n=N, steer=WISH, mode=self.mode)

    def _check(self, ways: dict[str, list[Callable[[], Any]]], requests: list) -> None:
        for at, histories in enumerate(requests):
            clear = self._clear(histories)
            require(clear.mean() > 0.98, "the code of nearly every row")
            want = [part[clear] for part in ways[PYTHON][at]()]
            for name, calls in ways.items():
                got = [part[clear] for part in calls[at]()]
                require(same_top(*want, *got, tie=TIE), name)

    def _clear(self, histories: list[list[int]]) -> np.ndarray:
        """Rows (B,) whose last latent is no tie with the next: of two, either may be in the code,
        and then the scores are others."""
        sae, embedding = self.model.fitted.sae, self.model.embed(histories=histories)
        weights = (sae.encoder, sae.encoder_bias, sae.bias)
        values = ops.topk_encode(embedding, *weights, sae.width + 1).code.values
        return values[:, -2] - values[:, -1] > 1e-5 * values[:, -2]

    def _rows(self, timed: dict[str, timing.Timed], batch: int) -> list[dict[str, Any]]:
        rows = []
        for name, own in timed.items():
            peers = [peer for peer in (PLAIN, PYTHON) if peer != name] if name != PYTHON else []
            case = self.case(f"B={batch} {name} calls={own.count}")
            rows.append(record.row(case, "p99_ms", own.p99))
            for peer in peers or [None]:
                rows.append(
                    record.row(
                        case,
                        "p50_ms",
                        own.p50,
                        peer=peer,
                        peer_value=None if peer is None else timed[peer].p50,
                        higher_is_better=False,
                        answer_checked=True,
                    )
                )
        return rows


class Times:
    """Milliseconds of every call, by case and way; kept in a file where there is one."""

    def __init__(self, calls: int, file: Path | None = None) -> None:
        self.calls, self.file = calls, file
        kept = file is not None and file.exists()
        self.taken: dict[str, dict[str, list[float]]] = json.loads(file.read_text()) if kept else {}

    def gather(self, case: str, ways: dict[str, Callable[[], Any]], seconds: float) -> None:
        """Call each way in turn, in bursts of equal time, until all have their calls or time ends;
        each is called at least once. What a burst begins with is not counted, unless it is long."""
        taken = self.taken.setdefault(case, {})
        for name in ways:
            taken.setdefault(name, [])
        end = time.perf_counter() + seconds
        while True:
            for name, way in ways.items():
                missing = self.calls - len(taken[name])
                if missing > 0 and (not taken[name] or time.perf_counter() < end):
                    taken[name] += itertools.islice(_burst(way), missing)
            if time.perf_counter() >= end or all(len(taken[name]) >= self.calls for name in ways):
                break
        if self.file is not None:
            self.file.write_text(json.dumps(self.taken))

    def of(self, case: str) -> dict[str, timing.Timed]:
        return {
            name: timing.Timed(*np.percentile(one, [50, 99]).tolist(), len(one))
            for name, one in self.taken[case].items()
        }


def _burst(way: Callable[[], Any]) -> Iterator[float]:
    start = begun = time.perf_counter()
    counted = False
    while begun - start < BURST:
        way()
        now = time.perf_counter()
        counted = counted or begun - start >= SETTLE or now - begun >= 2 * SETTLE
        if counted:
            yield 1e3 * (now - begun)
        begun = now


def _bound(
    session: Any, model: SteerableRecommender, requests: list
) -> list[Callable[[], list[np.ndarray]]]:
    """A call for each request, its inputs bound once."""

    def ask(binding: Any) -> list[np.ndarray]:
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    calls = []
    for one in requests:
        binding = session.io_binding()
        for name, array in export.feeds(model, one, n=N, steer=WISH).items():
            # bind_cpu_input would not find the inputs that have a default
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_input(name, value)
        for name in ("ids", "scores"):
            binding.bind_output(name, "cpu")
        calls.append(lambda binding=binding: ask(binding))
    return calls


def _in_turn(calls: list[Callable[[], Any]]) -> Callable[[], Any]:
    coming = itertools.cycle(calls)
    return lambda: next(coming)()


def _processes(path: Path, custom_ops: bool, count: int) -> list[dict[str, float]]:
    """What `count` processes say that open a model, answer once, and wait for each other."""
    command = [sys.executable, "-m", "benchmarks.onnx_loading", str(path), str(int(custom_ops))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for one in running:
        if one.stdout.readline() != "ready\n":
            raise RuntimeError(f"{path} could not be opened in a process of its own")
    said = []
    for one in running:  # those behind are still alive, so that pages count as shared
        one.stdin.write("measure\n")
        one.stdin.flush()
        said.append(json.loads(one.stdout.readline()))
    for one in running:
        one.communicate()
    return said


def main() -> None:
    parser = record.arguments("onnx_latency", __doc__ or "")
    parser.add_argument("--batch", type=int, nargs="*", default=None, help="default 1 8 64 512")
    parser.add_argument("--mode", choices=("reconstruct", "residual"), default="reconstruct")
    parser.add_argument("--calls", type=int, default=None, help=f"of every way; default {CALLS}")
    parser.add_argument("--seconds", type=float, default=None, help=f"a batch; default {SECONDS}")
    parser.add_argument("--only", nargs="*", default=[""], help="words in ways' names")
    parser.add_argument("--work", type=Path, help="keep models and times here, and go on from them")
    parser.add_argument("--no-loading", action="store_true", help="leave loading and memory out")
    chosen = parser.parse_args()
    sizes = QUICK if chosen.quick else FULL
    batches = chosen.batch or ([1, 8] if chosen.quick else [1, 8, 64, 512])
    calls = chosen.calls or (300 if chosen.quick else CALLS)
    seconds = chosen.seconds if chosen.seconds is not None else 5 if chosen.quick else SECONDS
    with tempfile.TemporaryDirectory() as folder:
        work = chosen.work or Path(folder)
        exported = Exported(sizes, chosen.mode, work)
        times = Times(calls, chosen.work and work / f"times {sizes}.json")
        rows = [] if chosen.no_loading else exported.loading()
        for batch in batches:
            rows += exported.latency(batch, times, seconds, chosen.only)
    record.finish("onnx_latency", rows, chosen.json)


if __name__ == "__main__":
    main()
