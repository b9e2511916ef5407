"""Strict loading of YAML and JSON into pydantic models, with errors a person can act on."""

from __future__ import annotations

import difflib
import json
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


ModelT = TypeVar("ModelT", bound=BaseModel)


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


def describe(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """Turn a pydantic error into one sentence: where it is, what is wrong, what to do."""
    # A misspelt key is also a missing one: the spelling is what has to be mended.
    unknown = [e for e in error.errors() if e["type"] == "extra_forbidden"]
    problem = (unknown or error.errors())[0]
    location = tuple(problem["loc"])
    key = ".".join(str(part) for part in location)
    more = len(error.errors()) - 1
    rest = f" (and {more} more)" if more else ""
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        if not close and known:
            hint = f"; known keys are {', '.join(known)}"
        return f"{source}: unknown key '{key}'{hint}{rest}"
    if problem["type"] == "missing":
        return f"{source}: key '{key}' is missing{rest}"
    message = problem["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}{rest}"
    return f"{source}: key '{key}': {message}" if key else f"{source}: {message}"


def parse_model(model: type[ModelT], data: Any, source: str) -> ModelT:
    """Validate ``data``; raises ContractError (one sentence that names ``source`` and the key)."""
    if not isinstance(data, dict):
        raise ContractError(f"{source}: expected keys and values, found {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ContractError(describe(error, model, source)) from None


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
        raise ContractError(f"{path}{where}: not valid YAML") from None


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
