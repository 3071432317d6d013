# make demo   set up, run the whole chain on a real brain, say where the pictures and the report are
# make test   set up, run the tests
# make fuzz   100,000 hostile files: each read or refused; a finding names the command that repeats it
# make lint   ruff (rules and format) and mypy
# make schema   models/schema.json, the JSON schema of a bundle's metadata, anew from the code
# make docs   the documentation as a site in build/site, every link checked
# make coverage   the tests, and which lines of each module none of them runs
# make mutants   a hundred small mutations of the core, each with the tests that must fail by it: caught or survived (a quarter of an hour)
# make torture   a kill, a failing and a full disk at every step of the write path, and kills at random instants (a quarter of an hour)
# make bench   what the engine itself costs a volume; with DATA=folder instead: parts mri, detectors and fusion on your own patients, in bench/
# make bench-paper DATA=folder [PARTS="mri fusion"] [SPLIT=test] [MODEL=t1-to-flair] [EVERY=4]   the experiments on patients with masks
# make bench-speed [DATA=folder] [SPLIT=val] [MODEL=t1-to-flair]   against the published scheme, MONAI and anomalib: by turns, in one run
# make gpu   an NVIDIA card against the CPU: results, speed, memory, the published scheme, a profile; a table in gpu.work (8 minutes)
# make gpu-train   all networks of the bundles on one card from gpu.work/pack.npz (python -m examples.gpu.pack makes it; 8 minutes)
# make bench-weights DATA=ROOT [ONLY="digits-2x t1-to-flair/regression"]   train what only experiments need and is not in models/bench
#
# TORCH_INDEX: the index that PyTorch's site names for your machine (its CPU builds, or those for your CUDA version); without it pip
# takes the build that your package index offers.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PARTS ?= mri emphasis detectors fusion steps wrong-map sizes subtle texture resolution sampling expert augment
SPLIT ?= val
MODEL ?= t1-to-flair
EVERY ?= 4
PAPER = $(BIN)/python -m examples.benchmarks.paper --model $(MODEL) --split $(SPLIT) --every $(EVERY)

.PHONY: demo test coverage fuzz lint mutants docs schema torture bench bench-paper bench-speed bench-weights gpu gpu-train clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --index-url $(TORCH_INDEX) torch)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" bash examples/demo.sh demo

test: $(STAMP)
	PYTHONUTF8=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadscope --no-loadscope-reorder

fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.fuzz --count 100000

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m examples.docs.build

schema: $(STAMP)
	$(BIN)/python -m localdiff_cli.bundle.published

coverage: $(STAMP)
	PYTHONUTF8=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadscope --no-loadscope-reorder --cov=localdiff_cli --cov-report=term-missing:skip-covered

mutants: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants.run

torture: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.kill --every 1 --random 100

bench: $(STAMP)
	$(if $(DATA),$(PAPER) --part mri detectors fusion --data $(DATA) --out bench,$(BIN)/python -m examples.benchmarks.engine --volumes 1000)

bench-paper: $(STAMP)
	$(if $(DATA),,$(error DATA=folder is needed: pairs with lesion masks, as for localdiff fit))
	$(PAPER) --part $(PARTS) --data $(DATA) --page

bench-speed: $(STAMP)
	$(BIN)/python -m examples.benchmarks.speed --model $(MODEL) $(if $(DATA),--data $(DATA) --split $(SPLIT))
	$(BIN)/python -m examples.benchmarks.speed_training

gpu gpu-train:
	bash examples/gpu/run.sh $(if $(filter gpu-train,$@),train,check) $(ARGS)

bench-weights: $(STAMP)
	$(if $(DATA),,$(error DATA=folder is needed: the folder that holds the data sets lgg, t1t2, more, mnist and photographs))
	$(BIN)/python -m examples.benchmarks.remake --data $(DATA) $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf $(VENV) demo bench build dist
