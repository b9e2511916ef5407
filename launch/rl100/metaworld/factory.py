"""How a worker process makes a Meta-World environment, and the shapes of a policy for it."""

from __future__ import annotations

from dataclasses import dataclass

from rl100.metaworld.environment import NUM_POINTS, MetaWorldEnv, Observed, state_dim
from rl100.metaworld.tasks import MAX_STEPS, PERIOD_NS, canonical_name
from rl100.metaworld.world import ACTION_DIM
from rl100_trainer.spec import PolicySpec

TOOL = (0, 1, 2)
#: Of Meta-World's state: the objects, and the hand and the first of them one step before.
OBJECTS = ((4, 5, 6), (11, 12, 13), (18, 19, 20), (22, 23, 24))
TOOL_STEP = 0.01  # m that an action of 1 moves the hand's target


@dataclass(frozen=True)
class MetaWorldFactory:
    """Makes an environment when called; can be pickled. See ``MetaWorldEnv`` for the fields."""

    task: str
    observation: Observed
    n_action_steps: int
    n_obs_steps: int
    num_points: int = NUM_POINTS
    max_steps: int = MAX_STEPS

    def __call__(self) -> MetaWorldEnv:
        """A new environment."""
        return MetaWorldEnv(
            self.task,
            self.observation,
            self.n_action_steps,
            self.n_obs_steps,
            self.num_points,
            self.max_steps,
        )

    @property
    def period_ns(self) -> int:
        """Control period, ns."""
        return PERIOD_NS

    @property
    def spec(self) -> PolicySpec:
        """Shapes of a policy. Actions are steps of the hand's target, in units of their limits."""
        points = self.observation == "cloud"
        return PolicySpec(
            n_obs_steps=self.n_obs_steps,
            state_dim=state_dim(self.observation),
            num_points=self.num_points if points else 0,
            n_action_steps=self.n_action_steps,
            action_low=(-1.0,) * ACTION_DIM,
            action_high=(1.0,) * ACTION_DIM,
            action_is_delta=True,
            relative_to=TOOL,
            tool_step=TOOL_STEP,
            objects=() if points else OBJECTS,
            goal=(4, 5, 6) if points else (36, 37, 38),
        )


def make_metaworld(
    task: str, observation: Observed, n_action_steps: int, n_obs_steps: int
) -> MetaWorldFactory:
    """Factory of the environments of ``task`` (``push-v3`` or ``push``); its ``spec`` has the
    policy's shapes.

    Raises:
        ContractError: there is no such task.
    """
    return MetaWorldFactory(canonical_name(task), observation, n_action_steps, n_obs_steps)
