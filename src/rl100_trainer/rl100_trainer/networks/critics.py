"""Critics with an encoder of their own, whose points see where the tool is and where it will go.

What decides whether a policy improves is that a critic ranks actions *within* a state. So each
point carries its position relative to the tool and, for Q, relative to where the action chunk
takes the tool: contact is then a matter of small coordinates and not of large differences. Without
a cloud the positions in the state are compared in the same way (``geometry.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rl100_trainer.networks.blocks import mlp
from rl100_trainer.networks.encoder import PointEncoder
from rl100_trainer.networks.geometry import relative_geometry
from rl100_trainer.networks.geometry import width as geometry_width
from rl100_trainer.networks.images import SmallImageEncoder, channels_first
from rl100_trainer.networks.normaliser import Normaliser
from rl100_trainer.spec import PolicySpec

HIDDEN = 256
FEATURES = 64
POINT_WIDTHS = (64, 128)
# Clouds come in the order of farthest-point sampling, so the first points are a sample too.
POINTS = 64


class Critic(nn.Module):
    """A value of the newest frame, the time and, with ``with_action``, a normalised action chunk.

    Inputs: states (B, n_o, d_s) and clouds (B, n_o, N, 3) in physical units, images (B, n_o, H, W,
    3), uint8, times (B,) in [0, 1], actions (B, n_c, d), normalised. Gives (B,).
    """

    def __init__(self, spec: PolicySpec, normaliser: Normaliser, *, with_action: bool) -> None:
        super().__init__()
        self._spec = spec
        self._with_action = with_action
        self._follows = with_action and spec.tool_step > 0.0
        # Shared with the policy, whose weights it belongs to: not a submodule of the critic.
        self._normaliser = [normaliser]
        axes = len(spec.relative_to)
        width = spec.n_obs_steps * spec.state_dim + 1
        if spec.num_points:
            point_dim = 3 + axes * (3 if self._follows else 1)
            self.cloud = PointEncoder(point_dim, POINT_WIDTHS, FEATURES, "end")
            width += FEATURES
        if spec.image_shape is not None:
            self.image = SmallImageEncoder(spec.image_shape, FEATURES)
            width += FEATURES
        if spec.has_geometry:
            width += geometry_width(spec, 3 if self._follows else 1)
        if with_action:
            width += spec.n_action_steps * spec.action_dim
        self.head = mlp([width, HIDDEN, HIDDEN, 1], norm=True)

    def _moves(self, actions: Tensor | None) -> Tensor | None:
        """Where half the chunk and all of it take the tool, m: (B, 2, axes)."""
        if not self._follows or actions is None:
            return None
        moves = self._normaliser[0].physical_action(actions).cumsum(dim=1) * self._spec.tool_step
        return moves[:, [moves.shape[1] // 2, moves.shape[1] - 1]]

    def _points(self, state: Tensor, cloud: Tensor, moves: Tensor | None) -> Tensor:
        normaliser = self._normaliser[0]
        cloud = cloud[:, :POINTS]
        features = [normaliser.points(state, cloud)]
        if moves is not None:
            moved = moves[..., : len(self._spec.relative_to)] / normaliser.relative_scale
            features += [features[0][..., 3:] - moved[:, [index]] for index in (0, 1)]
        return torch.cat(features, dim=-1)

    def forward(
        self,
        states: Tensor,
        clouds: Tensor,
        images: Tensor,
        times: Tensor,
        actions: Tensor | None = None,
    ) -> Tensor:
        """Values (B,)."""
        normaliser = self._normaliser[0]
        parts = [normaliser.state(states).flatten(1), times.unsqueeze(1)]
        moves = self._moves(actions)
        if self._spec.has_geometry:
            steps = None if moves is None else moves[..., :3]
            parts.append(relative_geometry(self._spec, states[:, -1], steps))
        if self._spec.num_points:
            parts.append(self.cloud(self._points(states[:, -1], clouds[:, -1], moves)).relu())
        if self._spec.image_shape is not None:
            parts.append(self.image(channels_first(images[:, -1])).relu())
        if self._with_action:
            assert actions is not None
            parts.append(actions.flatten(1))
        value: Tensor = self.head(torch.cat(parts, dim=-1)).squeeze(-1)
        return value


class TwinQ(nn.Module):
    """Two independent Q networks; inputs as :class:`Critic`."""

    def __init__(self, spec: PolicySpec, normaliser: Normaliser) -> None:
        super().__init__()
        self.first = Critic(spec, normaliser, with_action=True)
        self.second = Critic(spec, normaliser, with_action=True)

    def forward(
        self, states: Tensor, clouds: Tensor, images: Tensor, times: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both values, each (B,)."""
        return (
            self.first(states, clouds, images, times, actions),
            self.second(states, clouds, images, times, actions),
        )


class FeatureQ(nn.Module):
    """Twin Q on frozen policy features, for off-policy evaluation in the model's feature space.

    Inputs: features with the time as last column (B, c + 1), actions (B, n_c * d), normalised.
    Gives (2, B).
    """

    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        widths = [features + 1 + actions, HIDDEN, HIDDEN, 1]
        self.twins = nn.ModuleList(mlp(widths, norm=True) for _ in range(2))

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """Both values."""
        joint = torch.cat([features, actions], dim=-1)
        return torch.stack([twin(joint).squeeze(-1) for twin in self.twins])
