# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
# Settings: PYTHON (3.10 or newer), TORCH (what pip installs for training), DATA (for the demo),
# WORKERS (parallel test processes).

PYTHON  ?= python3
TORCH   ?= torch==2.13.0
WORKERS ?= 2
DATA    ?=
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/pip install -q --disable-pip-version-check
ENGINE  := setup.py $(shell find csrc -type f 2>/dev/null)

.PHONY: setup setup-dev demo test fuzz large bench peers gpu gpu-tests mutate-kernels lint format clean

setup: $(VENV)/.engine

$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and pinned: an open range may bring gigabytes of CUDA to a machine without a GPU
$(VENV)/.torch: $(VENV)/.venv
	$(PIP) "$(TORCH)" setuptools wheel "pybind11>=2.12" "cmake>=3.20" "ninja>=1.10"
	@touch $@

# no build isolation: the build folder is kept, so a change of C++ recompiles that file alone
$(VENV)/.engine: $(VENV)/.torch pyproject.toml $(ENGINE)
	$(PIP) --no-build-isolation -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.engine
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

setup-dev: $(VENV)/.dev

# what tests read beside the environment's own packages: older versions of ONNX Runtime, Triton's
# schema, ONNX Runtime for browsers; where one cannot be had, its tests are skipped by name
BESIDE := onnxruntime==1.20.1 onnxruntime==1.23.2 tritonclient==2.73.0
$(VENV)/.beside: $(VENV)/.dev
	for one in $(BESIDE); do \
	    $(PIP) --no-deps --upgrade --target $(VENV)/beside/$$one $$one || true; \
	done
	if command -v npm > /dev/null; then \
	    npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(VENV)/beside/web onnxruntime-web@1.30.0 || true; \
	fi
	@touch $@

demo: setup
	$(BIN)/cfsae demo --out runs/demo $(if $(DATA),--data $(DATA))

test: setup-dev $(VENV)/.beside
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not gpu"

fuzz: setup-dev
	CFSAE_FUZZ_SECONDS=600 $(BIN)/python -m pytest tests/export/test_fuzz.py

# exports 2.5 GB of weights and asks them; needs 12 GB of memory, 6 GB of disk and some minutes
large: setup-dev
	CFSAE_LARGE=1 $(BIN)/python -m pytest tests/export/test_large.py -s

bench: setup-dev
	$(BIN)/python -m pytest benchmarks/micro --benchmark-only

# what the benchmarks compare with; torch stays the one that is installed
peers: setup-dev
	$(PIP) --no-build-isolation -e '.[peers]' "$(TORCH)"

# on a machine with a GPU: build, check every op, time it, compare with docs/gpu-roofline.md; under 8
# minutes. Nothing is installed: PYTHON needs torch, numpy and pybind11, and PATH nvcc, cmake and ninja
gpu:
	PYTHONPATH=. $(PYTHON) -m benchmarks.gpu --build --json build/gpu.json

# the same machine, with pytest and hypothesis: the test suites, on the GPU instead of emulated
gpu-tests:
	CFSAE_EMULATOR=gpu PYTHONPATH=. $(PYTHON) -m pytest -q tests/cuda_on_cpu/test_kernels.py tests/cuda_on_cpu/test_folded_kernels.py
	PYTHONPATH=. $(PYTHON) -m pytest -q tests/cuda_on_cpu/test_compiled.py tests/device -m "gpu or not gpu"
	PYTHONPATH=. $(PYTHON) -m pytest -q tests/ops --device cuda -k "not threads and not avx"

# breaks the kernels one place at a time: do the tests notice? a quarter of an hour on a core of its own; resumable
mutate-kernels: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/cuda_on_cpu/mutants.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc tests export -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | \
	    xargs -r $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.dev
	$(BIN)/ruff check --fix -q .
	$(BIN)/ruff format -q .
	find csrc tests export -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | \
	    xargs -r $(BIN)/clang-format -i

clean:
	rm -rf build dist *.egg-info cfsae_fast/*.so .pytest_cache .ruff_cache .hypothesis
