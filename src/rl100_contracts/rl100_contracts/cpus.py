"""CPU numbers as people write them."""

from __future__ import annotations

import re

from rl100_contracts.errors import ContractError

NUMBERS = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPUs of a text such as "2", "0,2" or "2-3", in order; an empty one: none.

    Raises:
        ContractError: it is no such text; says what to give, not where.
    """
    cpus: set[int] = set()
    for part in (part.strip() for part in text.split(",")):
        numbers = NUMBERS.fullmatch(part)
        named = range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1) if numbers else range(0)
        if part and not named:
            raise ContractError("give CPU numbers such as 2, '0,2' or '2-3'")
        cpus.update(named)
    return tuple(sorted(cpus))
