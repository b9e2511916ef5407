"""Trains diffusion policies from recorded episodes. PyTorch lives only in this package."""
