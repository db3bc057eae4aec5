"""Mutation check of the kernels: break one place at a time and ask whether a test notices.

    python tests/cuda_on_cpu/mutants.py [--files top_scan.cu ...] [--again] [--equivalents] [--list]

Barriers, warp syncs, waits and commits of copies are taken out; of each bound `<` becomes `<=`,
`<=` becomes `<`, and so for `>`. All mutants are one build (mutation.h). Every test runs once
whole, which shows the sites it reaches: a barrier it passes, a bound whose swap would have said
something else. Then each mutant runs in a process of its own against the tests that reach it, short
and unlike ones first, to the first failure. A crash, a report of the emulator and a test that takes
ten times as long count as noticed. What the record holds is not run again, unless its file has
changed; with --again the survivors are, which a change of the tests asks for.
equivalent_mutants.json says of each mutant that nothing can notice why that is so; these are run
with --equivalents alone.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import building
import pytest
from _pytest import runner

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KERNELS = ROOT / "csrc" / "cuda"
COPY = ROOT / "build" / "mutants"
TESTS = ("test_kernels.py", "test_folded_kernels.py", "test_limits.py")
NOT_LOADED = ("cacheprovider", "timeout", "terminal", "faulthandler")
MOST_SITES = 1024  # kMostSites of mutation.h
FACTOR, LEAST_SECONDS = 10, 10  # of CPU time, against a test that never ends

STATEMENT = re.compile(
    r"^\s*((?:__syncthreads|__syncwarp|Team::sync|commit_copies|wait_for_copies<[^>]*>)\(\);)"
)
BOUND = re.compile(r"(?<=[\w)\]}]) (<=|<|>=|>) (?=[\w(-])")
SWAPPED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
NAMES = {"<": "Less", "<=": "LessEqual", ">": "Greater", ">=": "GreaterEqual"}
NO_BOUND = re.compile(r"^\s*(#|template\b|static_assert\b)|\boperator\b")


class Site(NamedTuple):
    file: str
    line: int  # from 1
    text: str
    change: str
    nth: int  # of the same change to the same text in this file

    @property
    def key(self) -> str:
        return f"{self.file}: {self.text} [{self.change}] {self.nth}"


def sites_of(path: Path) -> Iterator[tuple[Site, int, int]]:
    """Every place of one file that can be broken, and where in its line the change begins, ends."""
    seen: dict[tuple[str, str, int], int] = {}
    for_nvcc = False  # what only nvcc compiles no emulator can judge
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code = line.split("//")[0]
        if code.startswith("#"):
            for_nvcc = code.startswith("#if defined(__CUDACC__)")
        spans = []
        if found := STATEMENT.search(code):
            spans.append((*found.span(1), "taken out"))
        if not NO_BOUND.search(code):
            spans += [
                (*one.span(), f"{one[1]} to {SWAPPED[one[1]]}") for one in BOUND.finditer(code)
            ]
        for column, (start, end, change) in enumerate([] if for_nvcc else spans):
            alike = (line.strip(), change, column)
            seen[alike] = seen.get(alike, -1) + 1
            nth = 100 * seen[alike] + column
            yield Site(path.name, number, line.strip(), change, nth), start, end


def all_sites() -> list[tuple[Site, int, int]]:
    sources = sorted(path for path in KERNELS.iterdir() if path.suffix in (".cu", ".h"))
    places = [place for path in sources for place in sites_of(path)]
    assert len(places) <= MOST_SITES, "kMostSites of mutation.h is too small"
    return places


def write_copy(sites: list[tuple[Site, int, int]]) -> Path:
    """csrc once more, where each site asks whether it is the broken one."""
    csrc = COPY / "csrc"
    shutil.rmtree(csrc, ignore_errors=True)
    shutil.copytree(ROOT / "csrc", csrc, ignore=shutil.ignore_patterns("cpu", "*.cpp"))
    lines = {path.name: path.read_text().splitlines() for path in (csrc / "cuda").iterdir()}
    for number, (site, start, end) in reversed(list(enumerate(sites))):
        line = lines[site.file][site.line - 1]
        if site.change == "taken out":
            asks = f"if (::mutation::stays({number})) {line[start:end]}"
        else:
            asks = f" < ::mutation::{NAMES[line[start:end].strip()]}{{{number}}} > "
        lines[site.file][site.line - 1] = line[:start] + asks + line[end:]
    for name, changed in lines.items():
        (csrc / "cuda" / name).write_text("\n".join(changed) + "\n")
    return csrc


class Record:
    """Verdicts by site, kept in a file after each; a file that changes loses its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = {
            source.name: hashlib.sha256(source.read_bytes()).hexdigest()[:16]
            for source in sorted(KERNELS.iterdir())
        }
        kept = json.loads(path.read_text()) if path.exists() else {"files": {}, "verdicts": {}}
        same = {name for name, digest in kept["files"].items() if self.files.get(name) == digest}
        self.verdicts = {
            key: verdict for key, verdict in kept["verdicts"].items() if key.split(":")[0] in same
        }

    def add(self, site: Site, verdict: str) -> None:
        self.verdicts[site.key] = verdict
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"files": self.files, "verdicts": self.verdicts}, indent=1)
        self.path.with_suffix(".new").write_text(text)
        self.path.with_suffix(".new").replace(self.path)


class Check:
    """A pytest plugin: runs the collected tests as often as there are mutants."""

    def __init__(self, library: Path, wanted: dict[int, Site], record: Record) -> None:
        self.library, self.wanted, self.record = ctypes.CDLL(str(library)), wanted, record
        self.name = library.stem

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        began = time.monotonic()
        reaching = self.explore(session.items)
        say(f"{len(session.items)} tests, whole, in {time.monotonic() - began:.0f} s\n")
        for number, site in self.wanted.items():
            tests = [(seconds, item) for seconds, item, sites in reaching if number in sites]
            verdict = "SURVIVED, reached by no test"
            if tests:
                verdict = self.judge(number, tests)
            self.record.add(site, verdict)
            say(f"{site.file}:{site.line}: {site.text} [{site.change}]: {verdict}\n")
        return True

    def explore(self, items: list[pytest.Item]) -> list[tuple[float, pytest.Item, set[int]]]:
        """What every test takes and the sites it reaches: one test of each function first, then a
        second one of each, and so on; the shortest first."""
        path = COPY / "reach.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        found = {}
        for item in items:
            digest = hashlib.sha256(item.path.read_bytes()).hexdigest()[:16]
            key = f"{self.name} {digest} {item.nodeid}"
            found[key] = kept[key] if key in kept else self.measured(item)
        path.write_text(json.dumps(found))
        everything = sorted(zip(found.values(), items, strict=True), key=lambda one: one[0][0])
        rounds: dict[str, int] = {}
        ordered = []
        for (seconds, sites), item in everything:
            name = item.nodeid.split("[")[0]
            rounds[name] = rounds.get(name, -1) + 1
            ordered.append((rounds[name], seconds, item, set(sites)))
        return [one[1:] for one in sorted(ordered, key=lambda one: one[:2])]

    def measured(self, item: pytest.Item) -> tuple[float, list[int]]:
        """CPU seconds of a test and the sites it reaches, with no site broken."""
        reached = (ctypes.c_ubyte * MOST_SITES)()
        self.library.mutation_take_reached(reached)
        began = time.process_time()
        failed = red(item)
        if failed:
            say(f"{item.nodeid} fails without any mutant:\n{failed}\n")
            raise pytest.UsageError(item.nodeid)
        self.library.mutation_take_reached(reached)
        return time.process_time() - began, [at for at, one in enumerate(reached) if one]

    def judge(self, number: int, tests: list[tuple[float, pytest.Item]]) -> str:
        """Runs the tests in a process of its own, where the site is broken."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            self.run_broken(number, tests, write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read().decode()
        status = os.waitpid(child, 0)[1]
        ran = said.split("\n")
        if os.WIFSIGNALED(status):
            what = "no end" if os.WTERMSIG(status) == 24 else f"signal {os.WTERMSIG(status)}"
            return f"noticed by {ran[-1]}, {what}"
        if os.WEXITSTATUS(status) != 0:
            return f"noticed by {ran[-1]}"
        return f"SURVIVED {len(tests)} tests"

    def run_broken(self, number: int, tests: list[tuple[float, pytest.Item]], write: int) -> None:
        """Never returns."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self.library.mutation_break(number)
        for place, (seconds, item) in enumerate(tests):
            os.write(write, ("\n" if place else "").encode() + item.nodeid.encode())
            used = resource.getrusage(resource.RUSAGE_SELF)
            limit = used.ru_utime + used.ru_stime + max(LEAST_SECONDS, FACTOR * seconds)
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, resource.RLIM_INFINITY))
            if red(item):
                os._exit(1)
        os._exit(0)


def red(item: pytest.Item) -> str:
    """What the test fails with."""
    reports = runner.runtestprotocol(item, log=False, nextitem=None)
    return "\n".join(str(one.longrepr) for one in reports if one.failed)


def say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def equivalents() -> dict[str, str]:
    """Site -> why nothing can notice its mutant."""
    return json.loads((HERE / "equivalent_mutants.json").read_text())


def sum_up(sites: list[Site], record: Record) -> int:
    """0 if all have run and 95 % of those that are not equivalent were noticed."""
    run = [site for site in sites if site.key in record.verdicts]
    noticed = [site for site in run if record.verdicts[site.key].startswith("noticed")]
    reasons = equivalents()
    for site in run:
        if site not in noticed:
            why = reasons.get(site.key, "A GAP IN THE TESTS")
            say(f"{site.file}:{site.line}: {site.text} [{site.change}]: {why}\n")
    live = [site for site in run if site.key not in reasons]
    share = sum(site in noticed for site in live) / max(1, len(live))
    say(f"{len(sites)} mutants, {len(run)} run, {len(noticed)} noticed; {len(run) - len(live)} are "
        f"equivalent, of the others {share:.1%} noticed\n")  # fmt: skip
    return 0 if share >= 0.95 and len(run) == len(sites) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", nargs="*", help="names of files in csrc/cuda; default: all")
    parser.add_argument("--record", type=Path, default=COPY / "record.json")
    parser.add_argument("--again", action="store_true", help="run the survivors again")
    parser.add_argument("--equivalents", action="store_true", help="run those as well")
    parser.add_argument("--list", action="store_true", help="only say what the record holds")
    arguments = parser.parse_args()
    places = all_sites()
    record, wanted = Record(arguments.record), {}
    if not arguments.equivalents:
        reasons = equivalents()
        record.verdicts |= {s.key: "equivalent" for s, *_ in places if s.key in reasons}
    for number, (site, *_) in enumerate(places):
        verdict = record.verdicts.get(site.key)
        again = verdict is None or (arguments.again and verdict.startswith("SURVIVED"))
        if again and (not arguments.files or site.file in arguments.files):
            wanted[number] = site
    if wanted and not arguments.list:
        os.environ["CFSAE_CUDA_CSRC"] = str(write_copy(places))
        library = building.build_mutants(Path(os.environ["CFSAE_CUDA_CSRC"]))
        tests = [str(HERE / name) for name in TESTS]
        flags = ["-o", "addopts=", *(f"-pno:{one}" for one in NOT_LOADED)]
        code = pytest.main([*flags, *tests], plugins=[Check(library, wanted, record)])
        if code != 0:
            return int(code)
    return sum_up([site for site, *_ in places], record)


if __name__ == "__main__":
    sys.exit(main())
