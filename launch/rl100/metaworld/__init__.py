"""Meta-World as an optional benchmark, in an environment of its own (`make metaworld`)."""
