"""``--set key=value`` for benchmarks that are described by numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from rl100.system_parts import suggestion
from rl100_contracts.errors import ContractError

PlanT = TypeVar("PlanT")


def with_overrides(plan: PlanT, bench: str, overrides: Sequence[str] = ()) -> PlanT:
    """The plan (a frozen dataclass of numbers) of a benchmark, with what ``--set`` asks for.

    Raises:
        ContractError: an unknown key, or a value that is no number.
    """
    made: Any = plan
    known = {field.name: type(getattr(made, field.name)) for field in fields(made)}
    values: dict[str, int | float] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key not in known:
            raise ContractError(
                f"--set {text}: the benchmark {bench} has no '{key}'; it has {', '.join(known)}"
                + suggestion(key, known)
            )
        try:
            values[key] = known[key](value)
        except ValueError:
            raise ContractError(f"--set {text}: '{value}' is no number that {key} takes") from None
        if not 0 <= values[key] <= 1_000_000:
            raise ContractError(f"--set {text}: give a number from 0 to 1000000")
    return replace(made, **values)
