"""Consistency distillation: a student that does in one step what the K-step policy does.

L_CD = ‖C_w(x^τ, τ) - sg[Ψ(x^τ → 0)]‖² with the teacher's own deterministic chains: every sample on
a chain has the chain's end as its target, so one chain gives K pairs. The student shares the
encoder, which this loss doesn't touch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rl100_trainer.config import TrainConfig
from rl100_trainer.networks.policy import DiffusionPolicy


def student_rate(config: TrainConfig) -> float:
    """Learning rate of the student in the reinforcement learning stages: λ_CD × imitation's."""
    return config.online.distill_weight * config.imitation.learning_rate


def consistency_loss(
    policy: DiffusionPolicy, condition: Tensor, levels: int, generator: torch.Generator
) -> Tensor:
    """L_CD on fresh teacher chains.

    Args:
        condition: (B, c), encoded observations; no gradient flows into them.
        levels: pairs per chain: always the noisiest one, which is the one that is deployed, and
            ``levels - 1`` others drawn at random.
        generator: CPU generator.
    """
    condition = condition.detach()
    batch, steps, device = len(condition), policy.schedule.steps, condition.device
    shape = (batch, policy.horizon, policy.spec.action_dim)
    noise = torch.randn(shape, generator=generator).to(device)
    with torch.no_grad():
        chain = policy.rollout(condition, noise).samples
    k = torch.randint(1, max(2, steps), (levels, batch), generator=generator).clamp(max=steps - 1)
    k[0] = 0
    k = k.to(device)
    samples = chain[k, torch.arange(batch, device=device)].flatten(0, 1)
    clean = policy.student_clean(samples, k.flatten(), condition.repeat(levels, 1))
    return (clean - chain[-1].repeat(levels, 1, 1)).square().mean()


@torch.no_grad()
def student_error(policy: DiffusionPolicy, condition: Tensor, generator: torch.Generator) -> float:
    """RMS difference between student and deterministic teacher from the same noise, normalised."""
    shape = (len(condition), policy.horizon, policy.spec.action_dim)
    noise = torch.randn(shape, generator=generator).to(condition.device)
    teacher = policy.rollout(condition, noise).samples[-1]
    student = policy.student_clean(noise, 0, condition).clamp(-1.0, 1.0)
    executed = policy.spec.n_action_steps
    return float((student - teacher)[:, :executed].square().mean().sqrt())
