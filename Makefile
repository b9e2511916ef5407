# Everything runs in the workspace's own environment; nothing needs to be activated.
#   PYTHON=/path/to/python3.11 make setup    another interpreter
#   QUICK=1 make demo                        the short demo
# The Meta-World extra has an environment of its own, .venv-metaworld; Open3D goes into .venv.

.PHONY: help setup build rebuild demo test test-fast lint metaworld test-metaworld open3d \
	clean distclean

help:
	@echo 'make setup      .venv, ROS 2 (from wheels, or the sourced one), colcon build'
	@echo 'make demo       the whole story in simulation (QUICK=1: the short one)'
	@echo 'make test       ruff, mypy and every test'
	@echo 'make test-fast  the tests that are neither slow nor start nodes'
	@echo 'make lint       ruff and mypy'
	@echo 'make metaworld  the Meta-World extra: .venv-metaworld and its tests'
	@echo 'make open3d     Open3D, for rl100 bench perception and its tests (105 MB)'
	@echo 'make build      build what changed (rebuild: everything)'
	@echo 'make clean      remove build results (distclean: .venv too)'

setup build:
	@./rl100 setup

rebuild:
	@./rl100 setup --rebuild

demo: setup
	@./rl100 demo $(if $(QUICK),--quick)

lint: setup
	./rl100 env -- ruff check .
	./rl100 env -- ruff format --check .
	./rl100 env -- mypy

# One thread of mathematics in each process: several wait for each other where cores are shared.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE ./rl100 env -- python -m pytest
# Tests run side by side, a file each; every file has a ROS domain of its own (conftest.py).
SIDE_BY_SIDE = $(PYTEST) --numprocesses 2 --dist loadfile

# Where other work takes the cores away for seconds, processes miss each other: a test with nodes that
# fails runs once more, and the summary names it (RERUN). One that is broken fails twice.
WITH_NODES = $(SIDE_BY_SIDE) --reruns 1 -rR

test: lint
	$(SIDE_BY_SIDE) -m 'not integration'
	$(WITH_NODES) -m integration

test-fast: setup
	$(SIDE_BY_SIDE) -m 'not slow and not integration'

metaworld:
	@PYTHONPATH=setup $(or $(PYTHON),$(wildcard .venv/bin/python),python3) -B -m rl100_setup.metaworld
	@$(MAKE) --no-print-directory test-metaworld

test-metaworld:
	@test -x .venv-metaworld/bin/python || { echo 'first: make metaworld' >&2; exit 1; }
	.venv-metaworld/bin/python -m pytest launch/test/metaworld

open3d: setup
	./rl100 env -- python -m pip install --require-hashes --only-binary :all: -r setup/open3d.lock

clean:
	rm -rf build install log .pytest_cache .mypy_cache .ruff_cache
	find src launch setup -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-metaworld
