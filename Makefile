# Every command of the project. `make` alone lists them; whatever needs the installation makes it first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-compile --constraint constraints.txt
# Whether the environment is there, and of a Python that the program runs on.
SUITS = $(BIN)/python -c 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
# Nothing where a system has no flock, or a file system no locks. It keeps no process that a signal would have to pass.
LOCK = $(shell flock --no-fork --nonblock --conflict-exit-code 0 constraints.txt true 2>/dev/null \
	&& echo flock --no-fork constraints.txt)

# What a user passes goes to the program word for word: taken unexpanded ($(value)) and handed over in the
# environment. The program maps EXP, SET, ... to its options, and refuses variables that a target does not take.
OURS := PYTHON VENV BIN PIP INSTALLED DEV_INSTALLED SHELL MAKE% COMMANDS
GIVEN := $(filter-out $(OURS),$(foreach name,$(.VARIABLES),$(if $(findstring command,$(origin $(name))),$(name))))
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export GIVEN $(GIVEN)
# The same for targets that the program does not run: $(call takes,NAMES).
takes = $(if $(filter-out $(1),$(GIVEN)),$(error make $@: takes no variable $(filter-out $(1),$(GIVEN)); it takes $(or $(1),none)))

COMMANDS := train preview resume doctor prove-resume bench evaluate predict explain export curves report compare \
	check list models results folds labels sweep ablate find-rate

TARGETS := help install schema notebooks test test-all lint clean with-torch with-export with-labels with-sweep $(COMMANDS)

.DEFAULT_GOAL := help
.PHONY: $(TARGETS)

# Refused before anything starts: make would first train, and find the word that is no target afterwards.
STRAY := $(firstword $(filter-out $(TARGETS) $(INSTALLED) $(DEV_INSTALLED),$(MAKECMDGOALS)))
$(if $(STRAY),$(error make has no target $(STRAY); `make` lists them. An experiment is named with EXP=name, \
	without spaces around the sign; a value that has spaces goes in quotes))

help: ## show this list
	@$(call takes,)
	@echo "make TARGET [EXP=name] [SET=\"training.epochs=2 seed=1\"] ..."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## make .venv with everything that training needs
	@$(call takes,)
	@echo "$(VENV) is ready"

$(COMMANDS): $(INSTALLED)
	@test -x $(BIN)/python || { echo "$(VENV) is not whole. \`make clean install\` makes it anew" >&2; exit 2; }
	@exec $(BIN)/python -m app --from-make $@

train: ## train EXP (default: quickstart); SET="key=value ...", DATA_DIR=folder, FROM=run to repeat a run, EPOCHS=2, SEED=1, SEEDS=3 for three runs, WORKERS=2 to try several processes
preview: ## draw 24 augmentations of an image of EXP, and its learning rate, before any training
resume: ## resume RUN, or the newest unfinished run of EXP; EPOCHS=n [SCHEDULE=keep|stretch] trains its newest run further; FORCE=1
doctor: ## check EXP before a long run, or find the layer in which RUN became non-finite
find-rate: ## train EXP for 60 to 200 steps while its learning rate rises, and suggest a peak
prove-resume: ## train EXP straight and with KILLS=5 kills, and compare the two runs bit by bit
bench: with-torch ## measure how fast EXP trains here; AGAINST="keras torch" adds interleaved baselines, BESIDE="key=value ..." the same with one setting changed, WORKERS=2 shows how it scales; ROUNDS=7
evaluate: ## evaluate RUN, or the newest finished run of EXP, class by class; SPLIT=test, VIEWS=flip, CHECKPOINT=last
predict: ## predict the classes of IMAGES (a file, a folder, "*.jpg") with RUN, or the newest finished run of EXP; UNSURE=0.8 marks smaller probabilities, SORT_INTO=folder copies them by class
explain: ## draw the filters of the first layer of RUN and the Grad-CAM of IMAGES
export: with-export ## write the network of RUN for other programs: FORMAT=keras, saved_model, onnx or tflite; UNSURE=0.8 as in predict
report: ## write report.html of RUN, or of the newest finished run of EXP, again
curves: ## draw the curves of RUN, or of the newest finished run of EXP, again
compare: ## compare RUNS="a/latest b/latest", or the newest runs of EXPS="a b": picture and page
ablate: ## train EXP without each of its pieces (WITHOUT="training.ema ..."), with SEEDS=3, or resume that, and compare
folds: ## train EXP once a fold (FOLDS=5), or resume that, and predict every training image by a network that did not see it
sweep: with-sweep ## search the settings of EXP, or resume that: SPACE="optimizer.learning_rate.peak=log(1e-4,1e-1)", TRIALS=30, JOBS=2, STORAGE=postgresql://...
labels: with-labels ## list the training images of EXP whose labels are likely wrong, by its newest folds
check: ## check EXP, or every experiment, without training; SET, DATA_DIR, SHOW=1 (print it resolved)
list: ## list the experiments
models: ## list the networks beside their sources' sizes, or NETWORK layer by layer
results: ## write the tables of results in experiments/README.md and models/README.md from the run folders

with-torch: $(INSTALLED)
	@case "$$AGAINST" in *torch*) $(BIN)/python -c "import torch" 2>/dev/null || $(LOCK) $(PIP) --editable ".[torch]";; esac

with-export: $(INSTALLED)
	@case "$$FORMAT" in onnx|tflite) $(BIN)/python -c "import onnxruntime, tf2onnx, ai_edge_litert" 2>/dev/null \
		|| $(LOCK) $(PIP) --editable ".[export]";; esac

with-labels: $(INSTALLED)
	@$(BIN)/python -c "import cleanlab" 2>/dev/null || $(LOCK) $(PIP) --editable ".[labels]"

with-sweep: $(INSTALLED)
	@$(BIN)/python -c "import optuna, psycopg" 2>/dev/null || $(LOCK) $(PIP) --editable ".[sweep]"

schema: $(INSTALLED) ## write the catalogue of legal names, the editors' schema and the tables of keys again
	@$(call takes,)
	@exec $(BIN)/python -m app.config.catalogue

notebooks: $(DEV_INSTALLED) ## test every notebook, with shorter trainings, on copies
	@$(call takes,)
	@exec $(BIN)/python -m pytest -m "" tests/test_notebooks.py

test: $(DEV_INSTALLED) ## run the fast tests, two files at a time; ARGS="tests/config -x" is handed to pytest
	@$(call takes,ARGS)
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile $$ARGS

test-all: $(DEV_INSTALLED) ## run every test, the slow ones too
	@$(call takes,ARGS)
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "" $$ARGS

lint: $(DEV_INSTALLED) ## check format, style and types
	@$(call takes,)
	@$(BIN)/ruff format --check --quiet . || { echo "$(BIN)/ruff format .   mends the format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

clean: ## delete .venv and caches; never runs/ or data/
	@$(call takes,)
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find app models tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
$(DEV_INSTALLED): $(INSTALLED)

ifndef INSTALLING
# Of two that would install at the same time the second one waits, and then finds the stamp.
$(INSTALLED) $(DEV_INSTALLED):
	@test ! -e $(VENV) || test -w $(VENV) || { echo "$(VENV) is older than pyproject.toml or constraints.txt, or lacks \
	what this needs, and is not yours to write: its owner has to run make $(if $(filter $(DEV_INSTALLED),$@),lint,install)" >&2; exit 2; }
	@test -z "$(LOCK)" || flock --nonblock constraints.txt true || echo "another make installs into $(VENV); waiting for it"
	@$(LOCK) $(MAKE) --silent INSTALLING=1 $@
else
# A stamp is written last and removed first, so a half-finished installation never passes for a whole one.
$(INSTALLED):
	@rm -f $@ $(DEV_INSTALLED)
	@$(SUITS) || $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make install PYTHON=python3.12"; exit 1; }
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(SUITS) || $(PYTHON) -m venv --clear $(VENV)
	@if nvidia-smi >/dev/null 2>&1; then extras="gpu,pretrained"; else extras="pretrained"; fi; \
		$(PIP) --editable ".[$$extras]"
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

$(DEV_INSTALLED):
	@rm -f $@
	@echo "installing the development tools into $(VENV)"
	@$(PIP) --editable ".[dev]"
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@
endif
