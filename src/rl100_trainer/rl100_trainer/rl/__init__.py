"""Reinforcement learning: the formulas of critics, actor, gate and tests, without any data flow."""
