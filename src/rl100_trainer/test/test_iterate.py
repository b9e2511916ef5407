"""The whole of RL-100 on the smallest task: imitation, gated offline RL, online RL.

Pins: success does not fall from stage to stage and rises in the end; every verdict of the gate and
of the trial is kept; an improvement starts from the policy that was rolled out, and what
re-training by imitation makes must win against it; a run that is interrupted anywhere goes on and
ends; a refused candidate leaves every tensor as it was; data with one outcome only is refused;
another configuration or other demonstrations in the same folder are told in one sentence.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from rl100_contracts.errors import ContractError, Interrupted
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.store import load_episodes, save_episodes
from rl100_trainer.data.transitions import make_transitions
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import Progress
from rl100_trainer.rl.critic_training import OfflineCritics
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.source import OnEpisodes, ignore_episodes
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.stages.iterate import IterativeTraining
from rl100_trainer.stages.offline import OfflineLearner
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import (
    MAX_STEPS,
    PERIOD_NS,
    REACH_SPEC,
    REACH_TASK,
    ReachFactory,
    reach_demonstrations,
)

DISCOUNT = 0.95
WORLDS = 32
SETTINGS = (
    "model.widths=[64,64]",
    "model.features=32",
    "diffusion.steps=3",
    "diffusion.sigma_min=0.1",
    "diffusion.sigma_max=0.8",
    "imitation.steps=300",
    "distill.steps=150",
    f"critic.discount={DISCOUNT}",
    "critic.steps=300",
    "offline.iterations=1",
    "offline.rollouts=80",
    "offline.phases=2",
    "offline.steps=40",
    "offline.check_episodes=50",
    "offline.imitate=none",
    "online.env_steps=12000",
    f"online.environments={WORLDS}",
    "online.decisions=8",
    "run.device=cpu",
)
TINY = (
    *SETTINGS,
    "imitation.steps=20",
    "distill.steps=10",
    "critic.steps=20",
    "offline.rollouts=8",
    "offline.steps=2",
    "offline.check_episodes=4",
    "offline.imitate=weighted",
    "online.env_steps=600",
)
FRESH = range(1_000_000, 1_000_300)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvironmentPool]:
    with EnvironmentPool(ReachFactory(), REACH_SPEC, WORLDS, workers=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def demonstrations() -> list[EpisodeArrays]:
    return reach_demonstrations(range(60))


def source(pool: EnvironmentPool) -> VectorSource:
    return VectorSource(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=DISCOUNT)


def training(
    pool: EnvironmentPool,
    demonstrations: list[EpisodeArrays],
    run: Path,
    settings: tuple[str, ...] = TINY,
    **options: object,
) -> IterativeTraining:
    config = load_config(None, settings)
    return IterativeTraining(config, REACH_TASK, demonstrations, source(pool), run, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_success_rises_from_stage_to_stage(
    pool: EnvironmentPool, demonstrations: list[EpisodeArrays], tmp_path: Path
) -> None:
    run = training(pool, demonstrations, tmp_path, SETTINGS)
    run.run()
    rates = {
        name: run.source.evaluate(run.load(name), "k_step", FRESH).rate
        for name in ("il/bundle", "offline", "online/policy")
    }
    one_step = run.source.evaluate(run.load("online/policy"), "one_step", FRESH).rate
    # 300 episodes: a fall of five points would be seen, what is within noise is let pass.
    assert rates["offline"] >= rates["il/bundle"] - 0.05
    assert rates["online/policy"] >= rates["offline"] - 0.02
    assert rates["online/policy"] >= rates["il/bundle"] + 0.05
    assert one_step >= rates["online/policy"] - 0.05
    steps = json.loads((tmp_path / "steps.json").read_text())
    verdicts = steps["iteration_1:improvement"]["verdicts"]
    assert len(verdicts) == 2
    for verdict in verdicts:
        assert {"accepted", "reason", "j_behaviour", "j_candidate", "kl"} <= set(verdict)
    logged = (tmp_path / "iteration_1" / "candidate" / "metrics.jsonl").read_text()
    assert logged.count('"phase": "gate"') == 2
    assert {"adopted", "candidate_success", "wins"} <= set(steps["iteration_1:improvement trial"])


def test_an_interrupted_run_goes_on(
    pool: EnvironmentPool, demonstrations: list[EpisodeArrays], tmp_path: Path
) -> None:
    """Stopped again and again, a little later each time, it ends all the same."""
    interrupted = 0
    for patience in range(3, 400, 15):
        calls = iter(range(10_000))

        def stop(calls: Iterator[int] = calls, patience: int = patience) -> bool:
            return next(calls) >= patience

        try:
            result = training(pool, demonstrations, tmp_path, stop=stop).run()
            break
        except Interrupted as error:
            interrupted += 1
            # Polishing the student has no checkpoint to go on from.
            goes_on = "does it again" if "polished" in str(error) else "goes on"
            assert f"the same command {goes_on}" in str(error)
    else:
        raise AssertionError("never finished")
    assert interrupted >= 3
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert {"il", "iteration_1:improvement", "iteration_1:re-training trial", "online"} <= set(
        steps
    )
    assert result.bundle == tmp_path / "bundle"
    again = training(pool, demonstrations, tmp_path).run()
    assert again.metrics == result.metrics


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rl100", "dppo"])  # dppo: V has no offline stage behind it
def test_the_same_seed_gives_the_same_policy(
    pool: EnvironmentPool, demonstrations: list[EpisodeArrays], tmp_path: Path, algorithm: str
) -> None:
    weights = []
    for name in ("a", "b"):
        settings = (*TINY, f"run.algorithm={algorithm}")
        run = training(pool, demonstrations, tmp_path / name, settings)
        run.run()
        weights.append(run.load("online/policy").state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_what_does_not_fit_the_task_leaves_no_run(
    pool: EnvironmentPool, demonstrations: list[EpisodeArrays], tmp_path: Path
) -> None:
    with pytest.raises(ContractError, match=r"model\.horizon 1 is below"):
        training(pool, demonstrations, tmp_path / "run", (*TINY, "model.horizon=1"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_rollouts_can_be_stopped_between_episodes(
    pool: EnvironmentPool, demonstrations: list[EpisodeArrays], tmp_path: Path
) -> None:
    asked: list[int] = []

    def show(progress: Progress) -> None:
        if progress.phase == "roll out":
            asked.append(progress.step)

    run = training(pool, demonstrations, tmp_path, progress=show, stop=lambda: bool(asked))
    with pytest.raises(Interrupted, match="interrupted in roll out"):
        run.run()
    assert "iteration_1:rollouts" not in run.steps
    run = training(pool, demonstrations, tmp_path, progress=show)
    asked.clear()
    run.run()
    assert asked == sorted(asked) and asked[-1] == run.config.offline.rollouts


class Judged(VectorSource):
    """Rollouts as ever, but whether the candidate of each trial wins is given."""

    wins: Iterator[bool]
    calls = 0

    def collect(
        self,
        policy: DiffusionPolicy,
        seeds: Sequence[int],
        on_episodes: OnEpisodes = ignore_episodes,
        *,
        explore: bool = True,
    ) -> list[EpisodeArrays]:
        episodes = super().collect(policy, seeds, on_episodes, explore=explore)
        if explore:
            return episodes
        if self.calls % 2 == 0:  # the candidate; the other one comes next
            self.won = next(self.wins)
        success = self.won == (self.calls % 2 == 0)
        self.calls += 1
        outcome = "success" if success else "failure"
        return [dataclasses.replace(episode, outcome=outcome) for episode in episodes]


@pytest.mark.parametrize(
    ("wins", "kept"),  # of the improvements' trials, then of the re-training's
    [
        ((True, True, False), "iteration_1/candidate_2"),
        pytest.param((True, False, False), "iteration_1/candidate", marks=pytest.mark.slow),
        pytest.param((True, False, True), "iteration_1/imitate/bundle", marks=pytest.mark.slow),
        pytest.param((False, True), "iteration_1/imitate/bundle", marks=pytest.mark.slow),
        ((False, False), "il/bundle"),
    ],
)
def test_the_best_of_improvements_and_retraining_is_kept(
    pool: EnvironmentPool,
    demonstrations: list[EpisodeArrays],
    tmp_path: Path,
    wins: tuple[bool, ...],
    kept: str,
) -> None:
    """A second improvement follows one that was adopted, and starts from it."""
    more = "offline.imitate=successes", "offline.gate=none", "offline.check_episodes=12"
    settings = (*TINY, *more)
    run = training(pool, demonstrations, tmp_path, settings)
    run.source = Judged(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=DISCOUNT)
    run.source.wins = iter(wins)
    run.run()
    order = ["rollouts", "critics"]
    for what in ("improvement", "improvement 2")[: len(wins) - 1]:
        order += [what, f"{what} trial"]
    order += ["re-training", "re-training trial"]
    names = [name for name in run.steps if name.startswith("iteration_")]
    assert names == [f"iteration_1:{step}" for step in order]
    adopted = [run.steps[name]["adopted"] for name in names if name.endswith("trial")]
    assert adopted == list(wins)
    # Offline learning leaves the encoder as it is, so it tells where a policy came from.
    folders = "il/bundle", "iteration_1/imitate/bundle", "iteration_1/candidate", "offline"
    old, again, candidate, last = (run.load(folder).state_dict() for folder in folders)
    encoder = [name for name in old if name.startswith("encoder.")]
    assert all(torch.equal(old[name], candidate[name]) for name in encoder)
    assert any(not torch.equal(old[name], again[name]) for name in encoder)
    wanted = run.load(kept).state_dict()
    assert all(torch.equal(wanted[name], last[name]) for name in last)


@pytest.mark.slow
def test_episodes_of_trials_are_data(
    pool: EnvironmentPool, demonstrations: list[EpisodeArrays], tmp_path: Path
) -> None:
    """Of the next iteration: what both policies did, whichever was kept, as they are deployed."""
    settings = (*TINY, "offline.gate=none", "offline.iterations=2")
    settings = (*settings, "offline.rollouts=10", "offline.check_episodes=6")
    run = training(pool, demonstrations, tmp_path, settings)
    run.source = Judged(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=DISCOUNT)
    # Adopted: one improvement of iteration 1 and the re-training of iteration 2.
    run.source.wins = iter((True, False, False, False, True))
    run.run()
    known = len(demonstrations)
    assert len(run.episodes(1)) == known + 10
    trials = 3 * 2 * 6
    assert len(run.episodes(2)) == known + 10 + trials + 10
    kept = run.rollouts("iteration_2/imitate")
    assert [episode.outcome for episode in kept] == ["success"] * 6 + ["failure"] * 6
    assert all(episode.chains is None for episode in kept)
    assert all(episode.chains is not None for episode in run.rollouts("iteration_2"))
    steps = sum(
        len(episode)
        for folder in ("iteration_1", "iteration_2")
        for tried in ("", "candidate", "candidate_2", "imitate")
        for episode in run.rollouts(f"{folder}/{tried}")
    )
    offline = {k: v for k, v in run.steps.items() if k.startswith("iteration_")}
    assert sum(int(step.get("env_steps", 0)) for step in offline.values()) == steps


def test_folders_are_not_mixed_up(
    pool: EnvironmentPool, demonstrations: list[EpisodeArrays], tmp_path: Path
) -> None:
    training(pool, demonstrations, tmp_path)
    with pytest.raises(ContractError, match="other demonstrations"):
        training(pool, demonstrations[:-1], tmp_path)
    with pytest.raises(ContractError, match="another configuration"):
        training(pool, demonstrations, tmp_path, (*TINY, "run.seed=1"))


@pytest.mark.slow
def test_baselines_skip_what_they_do_without(
    pool: EnvironmentPool, demonstrations: list[EpisodeArrays], tmp_path: Path
) -> None:
    run = training(pool, demonstrations, tmp_path / "bc", (*TINY, "run.algorithm=bc"))
    assert run.run().bundle == tmp_path / "bc" / "il" / "bundle"
    assert set(run.steps) == {"data", "il"}
    run = training(pool, demonstrations, tmp_path / "dppo", (*TINY, "run.algorithm=dppo"))
    run.run()
    assert set(run.steps) == {"data", "il", "online"}
    run = training(pool, demonstrations, tmp_path / "wsrl", (*TINY, "run.algorithm=wsrl"))
    assert run.run().bundle == tmp_path / "wsrl" / "il" / "bundle"
    assert run.steps["online"]["env_steps"] >= 600
    assert run.source.evaluate(run.load("online/policy"), "k_step", range(5)).success.shape == (5,)


def offline_learner(config: TrainConfig, demonstrations: list[EpisodeArrays]) -> OfflineLearner:
    policy = make_policy(REACH_SPEC, config)
    data = make_transitions(demonstrations, REACH_SPEC, DISCOUNT, MAX_STEPS)
    critics = OfflineCritics(policy, config.critic, 0)
    learner = OfflineLearner(
        policy, critics, data, config, max_steps=MAX_STEPS, success_reward=1.0, seed=0
    )
    critics.fit_values(data, lambda *_: None)
    critics.fit_judge(data, learner.conditions, lambda *_: None)
    return learner


def everything(learner: OfflineLearner) -> list[torch.Tensor]:
    """Every tensor that a phase can touch."""
    tensors = [t.clone() for t in learner.policy.state_dict().values()]
    for optimizer in (learner.actor, learner.student):
        for state in optimizer.state.values():
            tensors += [torch.as_tensor(value).clone() for value in state.values()]
    return [*tensors, learner.generator.get_state().clone()]


def test_a_harmful_update_is_refused_and_leaves_no_trace(
    demonstrations: list[EpisodeArrays],
) -> None:
    """A learning rate that destroys: the gate sees it, and everything is as it was."""
    config = load_config(None, (*SETTINGS, "critic.steps=150", "offline.steps=15"))
    learner = offline_learner(config, demonstrations)
    learner.phase({"success", "failure"}, lambda *_: None)  # so that the optimisers hold something
    before = everything(learner)
    for group in learner.actor.param_groups:
        group["lr"] = 0.1
    original = learner.critics.advantage
    learner.critics.advantage = lambda *arguments: -original(*arguments)  # type: ignore[method-assign]
    result = learner.phase({"success", "failure"}, lambda *_: None)
    assert not result.verdict.accepted
    assert result.verdict.j_candidate < result.verdict.j_behaviour
    after = everything(learner)
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_data_of_one_outcome_is_refused(demonstrations: list[EpisodeArrays]) -> None:
    config = load_config(None, (*TINY,))
    learner = offline_learner(config, demonstrations)
    result = learner.phase({"success"}, lambda *_: None)
    assert not result.verdict.accepted
    assert "only episodes of outcome success" in result.verdict.reason


def test_episodes_survive_the_disc(demonstrations: list[EpisodeArrays], tmp_path: Path) -> None:
    chained = dataclasses.replace(
        demonstrations[0],
        chains=demonstrations[0].states[:, None, :, :2],
        log_probs=demonstrations[0].rewards[:, None],
    )
    save_episodes(tmp_path / "some.npz", [chained, demonstrations[1]])
    for old, new in zip(
        [chained, demonstrations[1]], load_episodes(tmp_path / "some.npz"), strict=True
    ):
        for field in dataclasses.fields(EpisodeArrays):
            a, b = getattr(old, field.name), getattr(new, field.name)
            assert (a is None and b is None) or (a == b if isinstance(a, str) else (a == b).all())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "some.npz").read_bytes()[:500])
    with pytest.raises(ContractError, match=r"cut\.npz: cannot be read as episodes"):
        load_episodes(tmp_path / "cut.npz")
