# make run    set up and train the LSTM on MNIST        make test   set up and run the tests
# make check  format, lint, types, import contract and tests        make bench  the benchmarks
# make seeds  accuracy of the recipes over five seeds      make best  of the two best ones over three: about an hour, resumable
# make effects  what each change from the lab's starting point to its tuned run is worth: a few minutes, resumable
# make seconds  wall-clock seconds to an accuracy, against torch.nn.LSTM
# make evidence  the measurements behind docs/questions.md, and the page itself: about half an hour, resumable
# make fuzz  damaged files for every reader, ten minutes      make crash  kills, full disks, two at once      make hostile  attacks
# make programs  random cells on the interpreter, against the reference engine, ten minutes
# make labs  the check of students' code on 112 hand-ins: about four minutes      make class  a class of eighty, graded and killed
# make mutants  the share of small faults in the code that trains that the tests notice: about an hour, resumable
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# In two processes, as the smallest machine has two cores. In an order that is drawn anew, whose seed is printed: it comes
# again with --randomly-seed=SEED.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: run test check bench seeds best effects seconds evidence mutants fuzz programs labs class crash hostile format clean

run: .venv/installed
	$(BIN)/unroll train lstm-mnist

test: .venv/installed-dev
	$(PYTEST)

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: .venv/installed-dev
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/lab.py

seeds: .venv/installed
	$(BIN)/python benchmarks/seeds.py

best: .venv/installed
	$(BIN)/python benchmarks/seeds.py lstm-mnist-best lstm-mnist-bidirectional --seeds 3

effects: .venv/installed
	$(BIN)/unroll effects lstm-mnist-template lstm-mnist-tuned --seeds 5

seconds: .venv/installed
	$(BIN)/python benchmarks/seconds.py

evidence: .venv/installed
	$(BIN)/python benchmarks/evidence.py

mutants: .venv/installed-dev
	$(BIN)/python benchmarks/mutants.py --count 300 --seed 1

SEED := 0

fuzz: .venv/installed-dev
	$(BIN)/python tests/reliability/fuzz.py --seed $(SEED)

programs: .venv/installed-dev
	$(BIN)/python -m tests.reliability.programs --seed $(SEED)

labs: .venv/installed-dev
	$(BIN)/python tests/labs/hand_ins.py

class: .venv/installed-dev
	$(BIN)/python tests/labs/class_of_80.py --seed $(SEED)

crash: .venv/installed-dev
	$(BIN)/python tests/reliability/crash.py --seed $(SEED)

hostile: .venv/installed-dev
	$(BIN)/python tests/reliability/hostile.py

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# Built with the pinned tools below and not with whatever pip would fetch for an isolated build. Without a C++ compiler
# the package is installed without the fused engine; everything then runs on the reference engine.
BUILD := $(if $(shell command -v c++ || command -v g++ || command -v clang++),,UNROLL_NO_NATIVE=1) $(PIP) install \
	-c constraints.txt --no-build-isolation

.venv/installed: .venv/bin/python pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
	@echo "Setting up .venv (about a minute)"
	@$(PIP) install -c constraints.txt scikit-build-core cmake ninja
	@$(BUILD) -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@$(BUILD) -e '.[dev]'
	@touch $@
