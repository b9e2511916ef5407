"""``python -m rl100_trainer``: the command ``train``."""

from rl100_trainer.cli import main

main()
