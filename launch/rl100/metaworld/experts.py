"""Meta-World's scripted experts with noise: where demonstrations come from.

Success within 200 control steps, 100 seeds, of the expert as it is and with the noise that
demonstrations have by default (``std``; correlation 0.8 from step to step):

    task             expert  std   with noise  control steps of its successes (median)
    push-v3          0.99    0.20  0.70        60, with noise 82
    box-close-v3     0.90    0.15  0.69        106, 122
    disassemble-v3   0.99    0.15  0.62        130, 114
    peg-insert-side  0.85    0.15  0.64        94, 112
    push-wall-v3     1.00    0.25  0.58        80, 114

The gripper has no noise: that makes demonstrations lose the object rather than wander (push-v3 at
0.3: 0.20 in place of 0.46).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100.metaworld.environment import MetaWorldEnv
from rl100.metaworld.tasks import PERIOD_NS, canonical_name
from rl100.metaworld.world import library
from rl100_trainer.data.dataset import MODE_TELEOP, EpisodeArrays, simulated_episode

HAND_AXES = 3

# Standard deviations for the tasks that were measured, and for the others.
_STD = {
    "box-close-v3": 0.15,
    "disassemble-v3": 0.15,
    "peg-insert-side-v3": 0.15,
    "push-v3": 0.2,
    "push-wall-v3": 0.25,
}
_OTHER_STD = 0.2


@dataclass(frozen=True)
class ActionNoise:
    """AR(1) noise on the hand's motion: ``std`` in units of the largest action (1 cm a step),
    ``correlation`` from one control step to the next."""

    std: float = 0.0
    correlation: float = 0.8

    @staticmethod
    def demonstration(task: str) -> ActionNoise:
        """The default for demonstrations of a task: about six in ten of those measured succeed,
        which leaves something to learn beyond imitation."""
        return ActionNoise(_STD.get(canonical_name(task), _OTHER_STD))


class ScriptedExpert:
    """Meta-World's own expert for a task: a function of the state.

    Raises:
        ContractError: there is no such task, or Meta-World is not installed.
    """

    def __init__(self, task: str) -> None:
        library()
        from metaworld.policies import ENV_POLICY_MAP

        self._policy = ENV_POLICY_MAP[canonical_name(task)]()

    def act(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        """Action (4,) within ±1 for Meta-World's state (39,)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that actions will be clipped, as they are here
            action = self._policy.get_action(state)
        return np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)


class _Drift:
    """The noise of one episode."""

    def __init__(self, noise: ActionNoise, seed: int) -> None:
        self._noise = noise
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 0xE84]))
        self._value = noise.std * self._rng.standard_normal(HAND_AXES)

    def next(self) -> NDArray[np.float64]:
        """Noise of the next control step, (3,)."""
        rho = self._noise.correlation
        fresh = self._noise.std * math.sqrt(1.0 - rho * rho)
        self._value = rho * self._value + fresh * self._rng.standard_normal(HAND_AXES)
        return self._value


def record_demonstrations(
    env: MetaWorldEnv,
    expert: ScriptedExpert,
    seeds: Sequence[int],
    noise: ActionNoise | None = None,
    on_episode: Callable[[int], None] = lambda _: None,
) -> list[EpisodeArrays]:
    """One demonstration for each seed, successes and failures alike.

    Args:
        noise: without it the expert acts as it is.
        on_episode: told how many episodes are done.
    """
    episodes = []
    for seed in seeds:
        env.reset(seed=seed)
        drift = _Drift(noise or ActionNoise(), seed)
        states, clouds, actions = [], [], []
        succeeded = False
        while not (succeeded or env.step_count >= env.max_steps):
            seen = env.observe()
            action = expert.act(env.world.state)
            action[:HAND_AXES] += drift.next()
            action = np.clip(action, -1.0, 1.0).astype(np.float32)
            succeeded = env.act(action)
            states.append(seen["state"])
            clouds.append(seen["cloud"])
            actions.append(action)
        rewards = np.zeros(len(actions), dtype=np.float32)
        rewards[-1] = float(succeeded)
        episodes.append(
            simulated_episode(
                f"demonstration_{seed}",
                states=np.stack(states),
                clouds=np.stack(clouds),
                actions=np.stack(actions),
                rewards=rewards,
                decision=np.arange(len(actions)) % env.n_action_steps == 0,
                period_ns=PERIOD_NS,
                mode=MODE_TELEOP,
                success=succeeded,
                source="scripted",
            )
        )
        on_episode(len(episodes))
    return episodes
