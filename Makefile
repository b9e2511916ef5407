# Everything runs in the workspace's own environment; nothing needs to be activated.
#   PYTHON=/path/to/python3.11 make setup    another interpreter
#   QUICK=1 make demo                        the short demo

.PHONY: help setup build rebuild demo test test-fast lint clean distclean

help:
	@echo 'make setup      .venv, ROS 2 (from wheels, or the sourced one), colcon build'
	@echo 'make demo       the whole story in simulation (QUICK=1: the short one)'
	@echo 'make test       ruff, mypy and every test'
	@echo 'make test-fast  the tests that are neither slow nor start nodes'
	@echo 'make lint       ruff and mypy'
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
	./rl100 env -- mypy

test: lint
	./rl100 env -- python -m pytest

test-fast: setup
	./rl100 env -- python -m pytest -m 'not slow and not integration'

clean:
	rm -rf build install log .pytest_cache .mypy_cache .ruff_cache
	find src launch setup -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
