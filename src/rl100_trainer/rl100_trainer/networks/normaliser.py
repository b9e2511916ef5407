"""Normalisation of observations and actions; its numbers are weights that every bundle carries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rl100_trainer.spec import PolicySpec

SMALLEST_SCALE = 1e-4
# A value of the state that hardly moves in the data (m, rad or a quaternion's part) must not
# become hundreds of units once it does.
SMALLEST_STATE_SCALE = 1e-2
SAMPLE_POINTS = 200_000


class Normaliser(nn.Module):
    """State: zero mean, unit variance. Cloud: box to ±1, and tool-relative coordinates to unit
    variance. Actions: [low, high] to [-1, 1].
    """

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self._relative = list(spec.relative_to)
        dim, axes = spec.action_dim, len(self._relative)
        self.state_mean: Tensor
        self.state_scale: Tensor
        self.cloud_centre: Tensor
        self.cloud_scale: Tensor
        self.relative_scale: Tensor
        self.action_centre: Tensor
        self.action_scale: Tensor
        self.register_buffer("state_mean", torch.zeros(spec.state_dim))
        self.register_buffer("state_scale", torch.ones(spec.state_dim))
        self.register_buffer("cloud_centre", torch.zeros(3))
        self.register_buffer("cloud_scale", torch.ones(3))
        self.register_buffer("relative_scale", torch.ones(axes))
        self.register_buffer("action_centre", torch.zeros(dim))
        self.register_buffer("action_scale", torch.ones(dim))

    @torch.no_grad()
    def fit(self, spec: PolicySpec, states: Tensor, clouds: Tensor, actions: Tensor) -> None:
        """Take the numbers from data: states (M, n_o, d_s), clouds (M, n_o, N, 3), actions (M, d).

        Delta actions are scaled by the task's limits, so that every policy of a task has the same
        units of noise; absolute ones by the range that the data uses, within the limits.
        """
        flat = states.reshape(-1, states.shape[-1])
        self.state_mean.copy_(flat.mean(dim=0))
        self.state_scale.copy_(flat.std(dim=0, correction=0).clamp(min=SMALLEST_STATE_SCALE))
        if spec.num_points:
            self._fit_clouds(states, clouds)
        lowest, highest = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        if not spec.action_is_delta:
            used_low, used_high = actions.amin(dim=0), actions.amax(dim=0)
            margin = 0.05 * (used_high - used_low) + SMALLEST_SCALE
            lowest = torch.maximum(lowest, used_low - margin)
            highest = torch.minimum(highest, used_high + margin)
        self.action_centre.copy_((lowest + highest) / 2.0)
        self.action_scale.copy_(((highest - lowest) / 2.0).clamp(min=SMALLEST_SCALE))

    def _fit_clouds(self, states: Tensor, clouds: Tensor) -> None:
        stride = max(1, clouds.numel() // 3 // SAMPLE_POINTS)
        points = clouds.reshape(-1, 3)[::stride]
        low, high = points.amin(dim=0), points.amax(dim=0)
        self.cloud_centre.copy_((low + high) / 2.0)
        self.cloud_scale.copy_(((high - low) / 2.0).clamp(min=SMALLEST_SCALE))
        if self._relative:
            offsets = self._offsets(states, clouds).reshape(-1, len(self._relative))[::stride]
            self.relative_scale.copy_(offsets.square().mean(0).sqrt().clamp(min=SMALLEST_SCALE))

    def _offsets(self, state: Tensor, cloud: Tensor) -> Tensor:
        tool = torch.stack([state[..., i] for i in self._relative], dim=-1)
        return cloud[..., : len(self._relative)] - tool.unsqueeze(-2)

    def state(self, state: Tensor) -> Tensor:
        """(…, d_s), m or rad → unitless."""
        return (state - self.state_mean) / self.state_scale

    def xyz(self, cloud: Tensor) -> Tensor:
        """(…, N, 3), m → unitless."""
        return (cloud - self.cloud_centre) / self.cloud_scale

    def points(self, state: Tensor, cloud: Tensor) -> Tensor:
        """Point features (B, n_o, N, 3 or 3 + axes) of states (B, n_o, d_s) and their clouds."""
        features = self.xyz(cloud)
        if not self._relative:
            return features
        return torch.cat([features, self._offsets(state, cloud) / self.relative_scale], dim=-1)

    def action(self, action: Tensor) -> Tensor:
        """(…, d), task units → unitless."""
        return (action - self.action_centre) / self.action_scale

    def physical_action(self, action: Tensor) -> Tensor:
        """(…, d), unitless (clipped to ±1) → task units."""
        return action.clamp(-1.0, 1.0) * self.action_scale + self.action_centre
