# `make` lists what there is. Every target sets up what it needs in $(VENV) first.
VENV ?= .venv
PYTHON ?= python3
EXTRAS ?= dev
FILMS ?= demo

# An empty choice is none, for uv as well.
ifeq ($(strip $(UV_TORCH_BACKEND)),)
unexport UV_TORCH_BACKEND
endif

comma := ,
override FILMS := $(value FILMS)
export FILMS
BIN := $(VENV)/bin
MEMENTO := $(BIN)/memento
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

# TIER=full installs what the best tier of a target needs and downloads its weights; otherwise nothing is
# downloaded but packages. What a graphics card alone can run is left out where there is none.
TIER ?= embedded
ifneq ($(TIER),embedded)
ifneq ($(TIER),full)
$(error TIER is '$(TIER)': say TIER=full, or leave it out)
endif
endif
full = $(if $(filter full,$(TIER)),$(1))
GPU := $(call full,$(shell nvidia-smi -L 2>/dev/null | head -n 1))
EXTRAS_curate := shots,aesthetic$(if $(GPU),$(comma)caption)
EXTRAS_train := train
EXTRAS_generate := train
EXTRAS_eval := eval
WEIGHTS_curate := yolox_nano osnet_x0_25 face_yunet mobilefacenet clip-l14 $(if $(GPU),qwen3_vl_8b)
WEIGHTS_train := wan22_i2v_a14b
WEIGHTS_generate := wan22_i2v_a14b wan22_t2v_a14b memento
WEIGHTS_eval := --eval memento

.DEFAULT_GOAL := help
.PHONY: help setup setup-train full-curate full-train full-generate full-eval curate train generate eval query doctor check test test-slow bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@echo
	@echo 'TIER=full with curate, train, generate or eval: install and download what the best tier needs (docs/tiers.md)'

setup: $(STAMP)  ## install into $(VENV)
	@:

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12")'
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.7'
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[$(EXTRAS)]'
	@touch $@

TORCH := getting torch: $(strip $(if $(filter cpu,$(UV_TORCH_BACKEND)),its build for CPUs (0.2 GB), \
  $(if $(strip $(UV_TORCH_BACKEND)),its build for $(strip $(UV_TORCH_BACKEND)), \
  2.7 GB with all that NVIDIA GPUs need; without one stop here and say UV_TORCH_BACKEND=cpu make ... (0.2 GB))))

setup-train: setup  ## what the model needs as well (torch, diffusers, ...)
	@$(BIN)/python -c 'import importlib.util as i, sys; sys.exit(i.find_spec("torch") is None)' || echo "$(TORCH)"
	@$(MAKE) --no-print-directory setup EXTRAS=$(if $(findstring train,$(EXTRAS)),$(EXTRAS),$(EXTRAS)$(comma)train)

full-curate full-train full-generate full-eval: full-%:
	@$(MAKE) --no-print-directory setup EXTRAS=$(EXTRAS)$(comma)$(EXTRAS_$*)
	@$(MEMENTO) weights pull $(WEIGHTS_$*)

curate: $(or $(call full,full-curate),setup)  ## films to dataset: make curate FILMS=/path/to/films [PRESET=...] [OUTPUT=...] [ARGS=...]
	@$(MEMENTO) curate "$$FILMS" $(call full,--set shots.boundary=auto) $(if $(PRESET),--preset $(PRESET)) \
	  $(if $(OUTPUT),--output $(OUTPUT)) $(ARGS)

ifneq ($(filter train,$(MAKECMDGOALS)),)
ifeq ($(TIER)$(filter-out debug,$(RECIPE)),full)
$(error TIER=full fetches 126 GB that RECIPE=debug does not use: say RECIPE=high_noise_480p and then RECIPE=low_noise_480p, or leave TIER out)
endif
endif

train: $(or $(call full,full-train),setup-train)  ## dataset to model: make train [RECIPE=debug] [DATASET=...] [OUTPUT=...] [ARGS=...]
	@$(MEMENTO) train $(or $(RECIPE),debug) $(if $(DATASET),--dataset "$(DATASET)") $(if $(OUTPUT),--output $(OUTPUT)) $(ARGS)

generate: export STORY := $(STORY)
generate: $(or $(call full,full-generate),setup-train)  ## story script to film: make generate [STORY=file.json] [OUTPUT=...] [ARGS=...]
	@$(MEMENTO) generate $(if $(STORY),"$$STORY") $(call full,--adapter memento) $(if $(OUTPUT),--output $(OUTPUT)) $(ARGS)

# Without METHODS, what make generate left is evaluated; if it left nothing, it runs first.
eval: $(or $(call full,full-eval),setup)  ## score videos, write a report: make eval [METHODS="a=dir b=dir"] [STORIES=dir] [OUTPUT=...] [ARGS=...]
	$(if $(strip $(METHODS)),,@ls out/generate/*/story.json >/dev/null 2>&1 || { \
	  echo 'No story in out/generate: make generate runs first.'; \
	  $(MAKE) --no-print-directory generate TIER=embedded STORY= OUTPUT= ARGS=; })
	@$(MEMENTO) eval $(METHODS) $(if $(STORIES),--stories "$(STORIES)") $(if $(OUTPUT),--output $(OUTPUT)) $(ARGS)

query: setup  ## canned questions about the demo dataset; ask your own with memento query
	@$(MEMENTO) query

doctor: setup  ## which tier each part has here and how to raise it
	@$(MEMENTO) doctor

check: setup  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup  ## the test suite (minutes)
	$(BIN)/python -m pytest

test-slow: setup  ## the long tests as well
	$(BIN)/python -m pytest -m 'not gpu'

bench: setup  ## speed against peers and limits, measured here: make bench FILM=/a/real/film
	$(BIN)/python -m perf $(if $(FILM),'$(FILM)')

clean:  ## remove the environment; datasets are left alone
	rm -rf $(VENV) build *.egg-info
