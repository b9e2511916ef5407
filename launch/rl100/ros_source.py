"""Rollouts through the ROS graph: bundles pushed to the policy node, episodes read from bags."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rl100.session import EpisodeResult, Session
from rl100_contracts.errors import ContractError
from rl100_trainer.config import TrainConfig
from rl100_trainer.data.bags import read_episode
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rollouts.source import OnEpisodes, Outcomes, Sampler, ignore_episodes
from rl100_trainer.rollouts.trajectory import Trajectory, trajectory_of_episode
from rl100_trainer.stages.runs import save_policy

FIRST_TRAINING_SEED = 20_000_000


class RosSource:
    """Runs policies on a running simulated system; see ``rollouts.source.OnPolicySource``.

    Every policy is exported, checked and pushed like one that is deployed, and what is learnt from
    are the bags that the recorder wrote.

    Args:
        session: connected to the system (policy node, gateway, recorder, simulator, labeller).
        folder: of the bundles that are pushed.
    """

    def __init__(
        self, session: Session, task: LearningTask, config: TrainConfig, folder: Path
    ) -> None:
        if task.contract is None:
            raise ContractError(f"task '{task.name}' has no ROS system: leave out --ros")
        self._session, self._task, self._config = session, task, config
        self._contract, self._folder = task.contract, folder
        self._pushed: dict[str, Tensor] = {}
        self._number = 0
        self._next_seed = FIRST_TRAINING_SEED * (1 + config.run.seed)
        self.env_steps = 0

    def _push(self, policy: DiffusionPolicy) -> None:
        """Make the policy node run this policy, unless it does already."""
        weights = {name: value.cpu() for name, value in policy.state_dict().items()}
        same = self._pushed.keys() == weights.keys()
        if same and all(torch.equal(weights[name], self._pushed[name]) for name in weights):
            return
        self._number += 1
        bundle = self._folder / f"push_{self._number:04d}"
        shutil.rmtree(bundle, ignore_errors=True)  # of an earlier, interrupted start
        shapes = self._task.spec.observation_shapes
        states, clouds = (torch.zeros(1, *shapes[name]) for name in ("states", "clouds"))
        images = torch.zeros(1, *shapes["images"], dtype=torch.uint8)
        save_policy(
            copy.deepcopy(policy).cpu(),
            self._config,
            self._task,
            bundle,
            stage="rollout",
            parent="",
            observations=(states, clouds, images),
            metrics={},
        )
        self._session.load_bundle(str(bundle.absolute()))
        self._pushed = {name: value.clone() for name, value in weights.items()}

    def _run(
        self,
        policy: DiffusionPolicy,
        sampler: Sampler,
        seeds: Sequence[int],
        record: bool,
        on_episodes: OnEpisodes = ignore_episodes,
        *,
        explore: bool = False,
    ) -> list[EpisodeResult]:
        self._push(policy)
        self._session.set_parameters("rl100_policy", sampler=sampler, stochastic=explore)
        self._session.set_mode("policy")
        ended = itertools.count(1)
        return self._session.run_episodes(
            seeds, record=record, on_result=lambda _: on_episodes(next(ended))
        )

    def evaluate(self, policy: DiffusionPolicy, sampler: Sampler, seeds: Sequence[int]) -> Outcomes:
        """One episode for each seed, as deployed."""
        results = self._run(policy, sampler, seeds, False)
        return Outcomes(
            np.array([r.success for r in results]),
            np.array([r.steps for r in results], dtype=np.int64),
        )

    def collect(
        self,
        policy: DiffusionPolicy,
        seeds: Sequence[int],
        on_episodes: OnEpisodes = ignore_episodes,
        *,
        explore: bool = True,
    ) -> list[EpisodeArrays]:
        """One recorded episode of the K-step policy for each seed."""
        results = self._run(policy, "k_step", seeds, True, on_episodes, explore=explore)
        episodes = [read_episode(Path(r.path), self._contract) for r in results]
        self.env_steps += sum(len(episode) for episode in episodes)
        return episodes

    def trajectories(
        self, policy: DiffusionPolicy, environments: int, decisions: int
    ) -> list[Trajectory]:
        """Whole episodes until there are ``environments * decisions`` decisions."""
        wanted, runs, made = environments * decisions, [], 0
        chunk, discount = self._task.spec.n_action_steps, self._config.critic.discount
        while made < wanted:
            (episode,) = self.collect(policy, [self._next_seed])
            self._next_seed += 1
            runs.append(trajectory_of_episode(episode, discount, chunk, self._task.max_steps))
            made += len(runs[-1])
        return runs

    def state(self) -> dict[str, Tensor]:
        """Counters, for checkpoints."""
        return {"counters": torch.tensor([self.env_steps, self._next_seed, self._number])}

    def set_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        counters = (int(value) for value in tensors["counters"])
        self.env_steps, self._next_seed, self._number = counters
