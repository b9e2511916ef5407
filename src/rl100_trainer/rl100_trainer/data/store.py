"""Episodes of in-process rollouts on disk: one .npz, written whole or not at all."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_contracts.loading import sync
from rl100_trainer.data.dataset import EpisodeArrays

ARRAYS = ("states", "clouds", "actions", "stamps", "segment", "decision", "mode", "rewards")
OPTIONAL = ("chains", "log_probs", "images")
INDEX = "index"


def save_episodes(path: Path, episodes: Sequence[EpisodeArrays]) -> None:
    """Write all episodes into ``path`` (.npz, no pickle)."""
    arrays: dict[str, NDArray[Any]] = {}
    index = []
    for number, episode in enumerate(episodes):
        index.append(
            {"id": episode.episode_id, "outcome": episode.outcome, "source": episode.source}
        )
        for name in (*ARRAYS, *OPTIONAL):
            value = getattr(episode, name)
            if value is not None and (name != "images" or value.size):
                arrays[f"{number}.{name}"] = value
    arrays[INDEX] = np.frombuffer(json.dumps(index).encode(), dtype=np.uint8)
    fresh = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez(fresh, **arrays)  # type: ignore[arg-type]
        sync(fresh)
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def load_episodes(path: Path) -> list[EpisodeArrays]:
    """Read what :func:`save_episodes` wrote.

    Raises:
        ContractError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            index = json.loads(stored[INDEX].tobytes())
            return [
                EpisodeArrays(
                    episode_id=entry["id"],
                    outcome=entry["outcome"],
                    source=entry["source"],
                    **{name: stored[f"{number}.{name}"] for name in ARRAYS},
                    **{
                        name: stored[key]
                        for name in OPTIONAL
                        if (key := f"{number}.{name}") in stored
                    },
                )
                for number, entry in enumerate(index)
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ContractError(f"{path}: cannot be read as episodes ({error})") from None
