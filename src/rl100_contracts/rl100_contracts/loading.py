"""Strict loading of YAML and JSON into pydantic models, with errors a person can act on."""

from __future__ import annotations

import difflib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rl100_contracts.errors import ContractError


class StrictModel(BaseModel):
    """Base of all contracts: frozen, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def name_at(cls, data: dict[str, Any], location: tuple[int | str, ...]) -> str:
        """What a person calls the value at ``location`` of ``data``; empty: only its key is known.

        A model overwrites it whose lists follow names.
        """
        return ""


ModelT = TypeVar("ModelT", bound=StrictModel)


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys that the model at ``location`` (without the offending key itself) accepts."""
    current: Any = model
    for part in location:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        field = current.model_fields.get(str(part))
        if field is None:
            return []
        current = field.annotation
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _key(location: tuple[int | str, ...]) -> str:
    """A place as a person writes it: ``limits.velocity[0]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _unknown(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, str]:
    """What to say of an unknown key, and the key that it was meant to be, or an empty string."""
    known = _known_keys(model, location[:-1])
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    text = f"unknown key '{_key(location)}'"
    if close:
        return f"{text}; did you mean '{close[0]}'?", _key((*location[:-1], close[0]))
    return f"{text}; known keys are {', '.join(known)}" if known else text, ""


def describe(error: ValidationError, model: type[StrictModel], data: Any, source: str) -> str:
    """Turn a pydantic error into one sentence: where it is, what is wrong, what to do."""
    unknown: list[str] = []
    others: list[str] = []
    meant: set[str] = set()
    for problem in error.errors():
        if problem["type"] == "extra_forbidden":
            text, key = _unknown(model, tuple(problem["loc"]))
            unknown.append(text)
            meant.add(key)
    for problem in error.errors():
        location = tuple(problem["loc"])
        key = _key(location)
        if problem["type"] == "missing" and key not in meant:
            others.append(f"key '{key}' is missing")
        elif problem["type"] not in ("missing", "extra_forbidden"):
            message = problem["msg"].removeprefix("Value error, ")
            message = f"{message[0].lower()}{message[1:]}"
            name = model.name_at(data, location)
            place = f"key '{key}' ({name}): " if name else f"key '{key}': "
            others.append(f"{place}{message}" if key else message)
    # A misspelt key is also a missing one: the spelling is what has to be mended.
    first, *rest = unknown + others
    if not rest:
        return f"{source}: {first}"
    more = f" (and {len(rest) - 1} more)" if len(rest) > 1 else ""
    return f"{source}: {first}; also: {rest[0]}{more}"


def parse_model(model: type[ModelT], data: Any, source: str) -> ModelT:
    """Validate ``data``; raises ContractError (one sentence that names ``source`` and the key)."""
    if not isinstance(data, dict):
        raise ContractError(f"{source}: expected keys and values, found {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ContractError(describe(error, model, data, source)) from None


def read_text(path: Path) -> str:
    """Read a UTF-8 file; raises ContractError when it is missing or unreadable."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ContractError(f"{path}: no such file") from None
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: cannot be read ({error})") from None


def read_yaml(path: Path) -> Any:
    """What a YAML file holds (safe loader); raises ContractError."""
    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or ""
        why = f" ({' '.join(str(reason).split())})" if reason else ""
        raise ContractError(f"{path}{where}: not valid YAML{why}") from None


def load_yaml_model(model: type[ModelT], path: Path) -> ModelT:
    """Load a YAML file (safe loader) into a model; raises ContractError."""
    return parse_model(model, read_yaml(path), str(path))


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises ContractError."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ContractError(f"{path}, line {error.lineno}: not valid JSON") from None


def load_json_model(model: type[ModelT], path: Path) -> ModelT:
    """Load a JSON file into a model; raises ContractError."""
    return parse_model(model, read_json(path), str(path))


def check_output_file(path: Path, *endings: str) -> None:
    """For a command to call before minutes of work, not after them.

    Raises:
        ContractError: ``path`` is a folder, or in a folder that is not there, or its name has none
            of the ``endings`` (any will do when none is given).
    """
    if not path.absolute().parent.is_dir():
        raise ContractError(f"{path.parent}: no such folder for {path.name}")
    if path.is_dir():
        raise ContractError(f"{path}: is a folder; give the name of a file")
    if endings and path.suffix not in endings:
        raise ContractError(f"{path}: give a name that ends in {' or '.join(endings)}")


def sync(path: Path) -> None:
    """Flush a file or a folder to the disc, before a record is written that names it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finite(value: Any) -> Any:
    """The same for JSON, which has no NaN and no infinity: None stands for them."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text_atomic(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the whole new content, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes 0600; data is shared within a lab
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json_atomic(path: Path, data: dict[str, Any]) -> None:
    """Write JSON atomically, with sorted keys so that equal contents are equal files."""
    write_text_atomic(path, json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n")
