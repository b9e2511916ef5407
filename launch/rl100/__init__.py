"""The rl100 command and the one description of which nodes make up each system."""

__version__ = "0.1.0"
