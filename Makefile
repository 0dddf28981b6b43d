# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# make test EXTRAS=dev,gpu also runs the GPU kernels, in Triton's interpreter (Triton takes a gigabyte)
EXTRAS ?= dev
PACKAGES := kernels profiles perfmodel planner trainer runtime reports

.PHONY: setup demo test test-gpu gpu-bundle lint bench-kernels sanitize race clean

setup: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/sparseplan demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED) build/typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=build/typecheck $(BIN)/mypy -p sparseplan

$(INSTALLED): pyproject.toml constraints.txt $(wildcard kernels/native/* kernels/native/*/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparseplan needs Python 3.11 or newer: make PYTHON=/path/to/python")'
	@command -v $${CXX:-c++} >/dev/null || { echo "sparseplan needs a C++ compiler (Debian: apt install g++)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt scikit-build-core nanobind cmake ninja
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@

# make bench-kernels ARGS='--layers resnet50-3x3 --batch 16'
bench-kernels: $(INSTALLED)
	$(BIN)/python -m benchmarks.kernels $(ARGS)

# On a machine with a GPU whose python has torch and Triton: make test-gpu OUT=folder GPU_PYTHON=python3
# The wheels of `make gpu-bundle` stand in for what that python lacks; nothing is installed there.
GPU_PYTHON ?= python3
OUT ?= runs/gpu
test-gpu:
	$(GPU_PYTHON) benchmarks/gpu/unpack_bundle.py build/gpu-bundle build/gpu-site
	PYTHONPATH=build/gpu-site:. TRITON_DEFAULT_FP_FUSION=1 $(GPU_PYTHON) -m benchmarks.gpu --out $(OUT)

# Wheels of sparseplan and of its small dependencies for the python of the GPU's machine: make gpu-bundle BUNDLE_PYTHON=python3.12
BUNDLE_PYTHON ?= python3.12
BUNDLE_ALSO ?=
gpu-bundle:
	$(BUNDLE_PYTHON) -m venv build/bundle-venv
	build/bundle-venv/bin/pip install --quiet --constraint constraints.txt scikit-build-core nanobind cmake ninja
	rm -rf build/gpu-bundle
	build/bundle-venv/bin/pip wheel --quiet --no-deps --no-build-isolation --config-settings build-dir=build/bundle --wheel-dir build/gpu-bundle .
	build/bundle-venv/bin/pip download --quiet --no-deps --only-binary :all: --constraint constraints.txt --dest build/gpu-bundle \
		pydantic pydantic_core annotated-types typing-inspection typing_extensions psutil pytest pluggy iniconfig packaging Pygments \
		safetensors rich markdown-it-py mdurl jinja2 MarkupSafe hypothesis sortedcontainers torch-pruning joblib threadpoolctl $(BUNDLE_ALSO)
	du -sh build/gpu-bundle

# Native code under AddressSanitizer and UndefinedBehaviorSanitizer, and under ThreadSanitizer (GCC).
sanitize: $(INSTALLED)
	$(BIN)/python tests/kernels/sanitized.py address

race: $(INSTALLED)
	$(BIN)/python tests/kernels/sanitized.py thread

# mypy finds packages by folder: show it the installed layout.
build/typecheck: $(MAKEFILE_LIST)
	@rm -rf $@ && mkdir -p $@/sparseplan
	@ln -s $(CURDIR)/src/sparseplan/* $@/sparseplan/
	@for package in $(PACKAGES); do ln -s $(CURDIR)/$$package $@/sparseplan/$$package; done

clean:
	rm -rf build $(VENV)
