# One command from a fresh clone: each target first completes the set-up in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TASK ?= detection
FAMILY ?= hire
# openmmlab; onedl: the packages that continue it; lowest: the oldest versions that setup.py allows; timm: with timm installed
STACK ?= $(if $(filter classification,$(TASK)),timm,openmmlab)
# mmcv's operators: plain (PyTorch, from this package) or compiled
OPERATORS ?= plain
$(if $(filter openmmlab onedl lowest timm,$(STACK)),,$(error STACK is openmmlab, onedl, lowest or timm, not '$(STACK)'))
$(if $(filter plain compiled,$(OPERATORS)),,$(error OPERATORS is plain or compiled, not '$(OPERATORS)'))
SUFFIX := $(subst -openmmlab,,-$(STACK))
VENV := .venv$(SUFFIX)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
CONSTRAINTS := constraints$(SUFFIX).txt
EXTRA_openmmlab := mim,export,data
EXTRA_timm := mim,timm,timm-tests,data
EXTRA_onedl := onedl,data
EXTRA_lowest := mim,data
EXTRA := $(EXTRA_$(STACK))
MMCV := $(if $(filter onedl,$(STACK)),onedl-mmcv,mmcv)
PURE_MMCV := $(if $(filter onedl,$(STACK)),onedl-mmcv,mmcv-lite)
HAS_OPS := $(BIN)/python -c 'import sys, mmcv._ext as ops; sys.exit(ops.__file__.endswith(".py"))' 2>/dev/null

HEAD_detection := mask_rcnn_
HEAD_segmentation := upernet_
DATA := data/shapes$(if $(filter classification,$(TASK)),_classes)
SHAPES := $(DATA) $(if $(filter classification,$(TASK)),--classify --num-train 1000 --num-val 250 --size 64)
NAME_mixer := mlp_mixer
NAME_vip := vip
CONFIG := configs/$(TASK)/$(or $(NAME_$(FAMILY)),$(FAMILY)_mlp)_$(HEAD_$(TASK))shapes.py
FAMILIES := hire, as, cycle, wave, mixer, vip or sparse
RUN := work_dirs/demo_$(TASK)$(subst _hire,,_$(FAMILY))
BENCH := $(BIN)/python benchmarks

.PHONY: help setup demo bench evidence test soak docs lint

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: $(VENV)/.$(OPERATORS) ## build the environment in .venv (3 minutes; OPERATORS=compiled: 10 to 25 more; STACK=onedl, lowest or timm)

demo: setup ## generate data, train, test and draw predictions (TASK=segmentation or classification; FAMILY=as, cycle, wave, mixer, vip or sparse)
	@[ -f "$(CONFIG)" ] || { echo "TASK is detection, segmentation or classification, and FAMILY $(FAMILIES), not" \
		"'$(TASK)' and '$(FAMILY)'." >&2; exit 2; }
	@[ -d $(DATA)/val ] || $(BIN)/python tools/make_shapes.py $(SHAPES)
	@echo '== training $(CONFIG) (the log prints the estimated time left)'
	$(BIN)/python tools/train.py $(CONFIG) --work-dir $(RUN) --seed 0 $$([ ! -f $(RUN)/last_checkpoint ] || echo --resume)
	@echo '== testing'
	$(BIN)/python tools/test.py $(CONFIG) $$(cat $(RUN)/last_checkpoint) --work-dir $(RUN) \
		--show-dir $(RUN)/predictions --report $(RUN)/report
	$(BIN)/python tools/plot_log.py $(RUN) --out $(RUN)/curves.png
	@echo '== ground truth and predictions: $(RUN)/predictions; learning curves: $(RUN)/curves.png'
	@echo '== report on classes, images and errors: $(CURDIR)/$(RUN)/report/index.html'

bench: setup ## time backbones and detectors on this CPU (about 30 minutes on two cores; nothing else should run)
	@echo '== inference of the backbones (about 7 minutes on two cores)'
	$(BENCH)/backbones.py --device cpu
	@echo '== the same with one thread at 512x512 (about 2 minutes)'
	$(BENCH)/backbones.py --device cpu --threads 1 --size 512x512
	@echo '== the same in bf16 (about 2 minutes)'
	$(BENCH)/backbones.py --device cpu --dtype bf16 --size 512x512
	@echo '== training step of the backbones, two images of 512x512 (about 5 minutes)'
	$(BENCH)/backbones.py --device cpu --train --size 512x512
	@echo '== inference of Mask R-CNN and UperNet (about 11 minutes)'
	$(BENCH)/detectors.py --device cpu
	@echo '== charts and numbers: work_dirs/benchmarks; their tables go into docs/performance.md'
	$(BENCH)/report.py

evidence: setup ## run the experiments without a result, on a GPU or data/camvid and data/coco, and write docs/evidence.md (PARTS="tests camvid"; DEVICE=cpu; TOY=1; ARGS=--help)
	$(BENCH)/evidence.py $(PARTS) $(if $(DEVICE),--device $(DEVICE)) $(if $(TOY),--toy) $(ARGS)

test: setup ## run all tests (12 to 20 minutes on two cores; ARGS="-m 'not slow'": the quick ones; STACK as above)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)  # idle threads release their core

soak: setup ## train for long and look for leaks of memory, processes and files (minutes; not part of test)
	ONEDNN_PRIMITIVE_CACHE_CAPACITY=32 LRU_CACHE_CAPACITY=32 $(BIN)/python -m pytest tests/soak/soak.py -s

docs: setup ## build the documentation site in site/
	@$(BIN)/mkdocs --version >/dev/null 2>&1 || $(PIP) install -c constraints.txt --no-build-isolation -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: setup ## check style, formatting, spelling and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell -D - -D .codespell-banned
	$(BIN)/mypy

# The steps of the set-up. A step that fails or is interrupted leaves no stamp, so the next call repeats it.
$(VENV)/.created:
	@echo '== set-up 1/3: virtual environment in $(VENV) (seconds)'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
		{ echo 'Python 3.10 or later is needed: make PYTHON=/path/to/python3.11' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.tools: setup.py constraints.txt | $(VENV)/.created
	@echo '== set-up 2/3: PyTorch and the tools of the tests (about a minute, longer on a slow network)'
	@$(PIP) install -c constraints.txt setuptools wheel
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

$(VENV)/.plain: $(CONSTRAINTS) $(VENV)/.tools
	@echo '== set-up 3/3: mmcv, mmdet and mmsegmentation (about a minute)'
	@$(PIP) show $(MMCV) >/dev/null 2>&1 || $(PIP) install -c $(CONSTRAINTS) $(PURE_MMCV)
	@$(PIP) install -c $(CONSTRAINTS) --no-build-isolation -e '.[$(EXTRA)]'
	@$(BIN)/mlp-dense operators status >/dev/null || $(BIN)/mlp-dense operators install
	@[ $(STACK) != timm ] || $(BIN)/python tests/support/torchvision_without_cuda.py
	@[ $(STACK) != timm ] || [ -d $(VENV)/mmpretrain ] || $(PIP) install -c $(CONSTRAINTS) --no-deps \
		--target $(VENV)/mmpretrain mmpretrain einops importlib-metadata mat4py model-index ordered-set markdown zipp
	@touch $@

# The installed package stays until its successor is built: mmcv and mmcv-lite install the same files.
COMPILE = $(PIP) install -c constraints.txt ninja && MMCV_WITH_OPS=1 $(PIP) wheel -c $(CONSTRAINTS) --no-build-isolation --no-deps --wheel-dir $(VENV)/wheels $(1) \
	$(MMCV) && $(PIP) uninstall -y $(PURE_MMCV) && $(PIP) install --no-deps $(VENV)/wheels/*.whl

$(VENV)/.compiled: $(VENV)/.plain
	@echo "== compiling mmcv's operators (10 to 25 minutes on two cores; seconds if pip has cached the wheel)"
	@$(HAS_OPS) || { $(call COMPILE); }
	@$(HAS_OPS) || { echo '   the wheel in the cache of pip has no operators: compiling again without the cache'; \
		$(call COMPILE,--no-cache-dir); }
	@$(HAS_OPS) || { echo "mmcv was built without its operators (no module mmcv._ext): install a C++ compiler (g++) and" \
		"the headers of Python, then call make again." >&2; exit 1; }
	@$(BIN)/mlp-dense operators remove >/dev/null
	@touch $@
