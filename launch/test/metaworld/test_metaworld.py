"""The Meta-World extra: names, reproducible starts, the chunk contract, experts and clouds."""

from __future__ import annotations

import pickle
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "metaworld.env_dict",  # not "metaworld": this folder is called so too
    reason="Meta-World has an environment of its own: `make metaworld` makes it and runs these",
)

from rl100.metaworld.cloud import CROP_HIGH, CROP_LOW
from rl100.metaworld.environment import MetaWorldEnv
from rl100.metaworld.experts import ActionNoise, ScriptedExpert, record_demonstrations
from rl100.metaworld.factory import make_metaworld
from rl100.metaworld.tasks import canonical_name, task_names
from rl100.problems import problem_named
from rl100_contracts.errors import ContractError
from rl100_trainer.data.dataset import make_windows

HAND, PUCK, GOAL = slice(0, 3), slice(4, 7), slice(36, 39)


def env_of(task: str = "push", observation: Any = "state", **sizes: Any) -> MetaWorldEnv:
    return MetaWorldEnv(task, observation, **{"n_action_steps": 4, "n_obs_steps": 2, **sizes})


def random_chunks(env: MetaWorldEnv, count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, env.action_space.shape).astype(np.float32) for _ in range(count)]


def trace(env: MetaWorldEnv, seed: int, chunks: list[np.ndarray]) -> np.ndarray:
    env.reset(seed=seed)
    states = [env.world.state.copy()]
    for chunk in chunks:
        env.step(chunk)
        states.append(env.world.state.copy())
    return np.stack(states)


def test_names_are_those_of_the_library() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert sorted(task_names()) == sorted(ALL_V3_ENVIRONMENTS)
    assert len(task_names()) == 50
    assert canonical_name("push") == canonical_name("push-v3") == "push-v3"
    assert canonical_name("Peg_Insert_Side") == "peg-insert-side-v3"


def test_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(ContractError, match=r"no task 'pusch-v3'.*'push-v3'"):
        make_metaworld("pusch-v3", "state", 4, 2)
    with pytest.raises(ContractError, match="it has assembly, basketball"):
        canonical_name("zzzz")


@pytest.mark.parametrize("task", ["push", "disassemble", "peg-insert-side", "door-open"])
def test_start_is_a_function_of_the_seed_alone(task: str) -> None:
    env = env_of(task)
    chunks = random_chunks(env, 5)
    first = trace(env, 3, chunks)
    for other in (0, 1):  # an episode in between moves objects and the model's bodies
        trace(env, other, random_chunks(env, 10, seed=other))
    np.testing.assert_array_equal(trace(env, 3, chunks), first)
    np.testing.assert_array_equal(trace(env_of(task), 3, chunks), first)


@pytest.mark.parametrize("task", ["push", "box-close", "push-wall"])
def test_object_and_goal_differ_from_seed_to_seed(task: str) -> None:
    env = env_of(task)
    starts = []
    for seed in range(20):
        env.reset(seed=seed)
        starts.append(np.concatenate([env.world.state[PUCK], env.world.state[GOAL]]))
        assert np.abs(env.world.state[GOAL]).sum() > 0.1  # the goal is not hidden
    distances = np.abs(np.stack(starts)[:, None] - np.stack(starts)[None]).max(axis=-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 1e-3


@pytest.mark.parametrize(("observation", "points"), [("state", 0), ("cloud", 64)])
def test_chunk_contract(observation: str, points: int) -> None:
    env = env_of(observation=observation, n_obs_steps=3, num_points=64, max_steps=10)
    seen, info = env.reset(seed=0)
    assert env.observation_space.contains(seen) and info == {}
    assert seen["cloud"].shape == (3, points, 3)
    np.testing.assert_array_equal(seen["state"][0], seen["state"][2])
    assert env.action_space.shape == (4, 4)

    seen, reward, terminated, truncated, info = env.step(np.full((4, 4), 3.0, dtype=np.float32))
    assert env.observation_space.contains(seen)
    assert not np.array_equal(seen["state"][1], seen["state"][2])
    assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    assert info["steps"] == env.step_count == 4
    assert info["actions"].dtype == info["rewards"].dtype == np.float32
    np.testing.assert_array_equal(info["actions"], np.ones((4, 4)))  # clipped
    assert "frames" not in info

    env.step(env.action_space.sample())
    _, _, terminated, truncated, info = env.step(np.ones((4, 4), dtype=np.float32))
    assert (info["steps"], terminated, truncated) == (2, False, True)
    assert not info["actions"][2:].any()
    with pytest.raises(ContractError, match="call reset"):
        env.step(env.action_space.sample())


@pytest.mark.parametrize(("history", "chunk"), [(1, 4), (2, 3), (3, 2)])
def test_frames_are_what_was_seen_before_each_step(history: int, chunk: int) -> None:
    sizes = {"n_obs_steps": history, "n_action_steps": chunk, "num_points": 32, "max_steps": 11}
    plain, dense = env_of("push", "cloud", **sizes), env_of("push", "cloud", **sizes)
    dense.dense = True
    last, _ = plain.reset(seed=5)
    dense.reset(seed=5)
    ended = False
    for action in random_chunks(plain, 6):
        if ended:
            break
        seen, *_, ended, info = plain.step(action)
        seen_dense, *_, info_dense = dense.step(action)
        frames = info_dense["frames"]
        assert len(frames) == info_dense["steps"] == info["steps"]
        for key in ("state", "cloud"):
            np.testing.assert_array_equal(frames[0][key], last[key])
            np.testing.assert_array_equal(seen_dense[key], seen[key])
        for before, after in pairwise(frames):
            np.testing.assert_array_equal(before["state"][1:], after["state"][:-1])
        last = seen
    assert ended


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ContractError, match="max_steps is 501"):
        env_of(max_steps=501)
    with pytest.raises(ContractError, match="n_obs_steps is 0"):
        env_of(n_obs_steps=0)
    env = env_of()
    env.reset(seed=0)
    for bad in (np.full((4, 4), np.nan), np.zeros((3, 4))):
        with pytest.raises(ContractError, match="finite values"):
            env.step(bad)


def test_expert_solves_push_and_the_episode_ends_there() -> None:
    env, expert = env_of(), ScriptedExpert("push")
    solved = 0
    for seed in range(10):
        env.reset(seed=seed)
        ended = False
        while not ended:
            action = expert.act(env.world.state)
            _, reward, terminated, truncated, info = env.step(np.tile(action, (4, 1)))
            ended = terminated or truncated
        solved += terminated
        if terminated:
            step = info["steps"] - 1
            assert reward == info["rewards"][step] == 1.0 and info["rewards"].sum() == 1.0
            assert info["success"] and not info["actions"][step + 1 :].any()
    assert solved >= 9


def test_demonstrations_fit_the_learner_and_noise_is_reproducible() -> None:
    factory = make_metaworld("push", "state", 4, 2)
    env, expert = factory(), ScriptedExpert("push")
    clean = record_demonstrations(env, expert, range(10))
    noisy = record_demonstrations(env, expert, range(10), ActionNoise.demonstration("push"))
    again = record_demonstrations(env, expert, [3], ActionNoise.demonstration("push"))
    assert sum(e.outcome == "success" for e in clean) >= 9
    assert 3 <= sum(e.outcome == "success" for e in noisy) <= 9
    np.testing.assert_array_equal(again[0].actions, noisy[3].actions)
    for episode in noisy:
        assert episode.rewards.sum() == (episode.outcome == "success")
        assert np.abs(episode.actions).max() <= 1.0
    windows = make_windows(noisy, factory.spec, horizon=4)
    assert windows.states.shape[1:] == (2, 39) and windows.clouds.shape[1:] == (2, 0, 3)


@pytest.mark.parametrize("task", ["push", "box-close", "hand-insert"])
def test_cloud_shows_the_object_within_the_crop_box(task: str) -> None:
    env = env_of(task, "cloud", num_points=128)
    for seed in range(5):
        seen, _ = env.reset(seed=seed)
        state = env.world.state
        np.testing.assert_allclose(seen["state"][-1], [*state[:4], *state[GOAL]], rtol=1e-6)
        cloud = seen["cloud"][-1]
        assert cloud.shape == (128, 3) and len(np.unique(cloud, axis=0)) > 50
        assert (cloud > CROP_LOW).all() and (cloud < CROP_HIGH).all()
        # Push: a puck of radius 2 cm and height 4 cm. The others are larger.
        reach = 0.03 if task == "push" else 0.06
        assert np.linalg.norm(cloud - state[PUCK], axis=1).min() < reach
        assert np.linalg.norm(cloud - state[HAND], axis=1).min() < 0.06  # the gripper


@pytest.mark.parametrize("observation", ["state", "cloud"])
def test_factory_survives_pickling_and_agrees_with_its_environment(observation: Any) -> None:
    factory = pickle.loads(pickle.dumps(make_metaworld("reach", observation, 2, 1)))
    env, spec = factory(), factory.spec
    assert env.max_steps == factory.max_steps == 200
    assert env.observation_space["state"].shape == (spec.n_obs_steps, spec.state_dim)
    assert env.observation_space["cloud"].shape == (spec.n_obs_steps, spec.num_points, 3)
    assert env.action_space.shape == (spec.n_action_steps, spec.action_dim)


def test_nothing_here_needs_ros() -> None:
    assert not [name for name in sys.modules if name == "rclpy" or name.startswith("rl100_msgs")]


def test_learning_problems_by_name() -> None:
    problem = problem_named("metaworld:reach:cloud")
    assert problem.name == problem.task.name == "metaworld:reach-v3:cloud"
    (episode,) = problem.demonstrate([0], lambda _: None)
    assert episode.clouds.shape[1:] == (2, 256, 3) and problem.task.spec.state_dim == 7
    assert problem_named("metaworld:reach").task.spec.num_points == 0
    with pytest.raises(ContractError, match="'image': give state or cloud"):
        problem_named("metaworld:reach:image")


def test_what_critics_compare_are_the_hand_the_object_and_the_goal() -> None:
    """The indices of the shapes, against the simulator's own positions, and an action's reach."""
    factory = make_metaworld("push", "state", 4, 1)
    spec, env = factory.spec, factory()
    env.reset(seed=3)
    before = env.world.data.mocap_pos[0].copy()
    env.step(np.tile(np.float32([0.5, -0.5, 0.25, 0.0]), (4, 1)))
    moved = env.world.data.mocap_pos[0] - before
    np.testing.assert_allclose(moved, 4 * spec.tool_step * np.array([0.5, -0.5, 0.25]), atol=1e-6)
    state, data = env.world.state, env.world.data
    np.testing.assert_allclose(state[list(spec.relative_to)], data.body("hand").xpos, atol=1e-6)
    np.testing.assert_allclose(state[list(spec.objects[0])], data.geom("objGeom").xpos, atol=1e-6)
    goal = env.world.model.site("goal").pos
    np.testing.assert_allclose(state[list(spec.goal)], goal, atol=1e-6)
