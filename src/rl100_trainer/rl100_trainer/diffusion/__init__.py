"""The diffusion schedule and sampler."""
