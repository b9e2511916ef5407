"""What systems are described with: nodes, arguments, systems. No rclpy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from rl100_contracts.errors import ContractError

Value = bool | int | float | str

#: Threads of the maths libraries in nodes that compute small things often: waiting threads must
#: not burn the cores that the control loop needs.
QUIET_MATHS = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class NodeSpec:
    """One process of a system.

    ``respawn``: started again when it ends. ``required``: the system ends with it.
    ``needs_terminal``: it reads keys, so a person starts it in a terminal of its own.
    ``environment``: variables set for this process unless the user set them. ``words``: on its
    command line before those of ROS. ``own``: of this stack, so that it answers Ctrl-C as all of
    its nodes do.
    """

    package: str
    executable: str
    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    lifecycle: bool = False
    respawn: bool = False
    required: bool = False
    needs_terminal: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: dict(QUIET_MATHS))
    words: tuple[str, ...] = ()
    own: bool = True


@dataclass(frozen=True)
class SystemArgument:
    """One ``name:=value`` of a system. ``default`` None: nothing is passed, the node decides.

    ``low``, ``high``: bounds of a number. ``check``: raises ContractError that says what to give.
    """

    name: str
    description: str
    default: str | None = None
    kind: type[Value] = str
    choices: tuple[str, ...] = ()
    needed: bool = False
    low: float | None = None
    high: float | None = None
    check: Callable[[str], object] | None = None

    def parse(self, text: str) -> Value:
        """Value of ``text``; raises ContractError with a sentence naming the argument."""
        if self.choices and text not in self.choices:
            raise ContractError(
                f"{self.name}:={text}: choose one of {', '.join(self.choices)}"
                + suggestion(text, self.choices)
            )
        if self.kind is bool:
            if text.lower() not in ("true", "false"):
                raise ContractError(f"{self.name}:={text}: give true or false")
            return text.lower() == "true"
        try:
            value = self.kind(text)
            if self.check is not None:
                self.check(text)
        except ContractError as error:
            raise ContractError(f"{self.name}:={text}: {error}") from None
        except ValueError:
            raise ContractError(f"{self.name}:={text}: give {self._wanted()}") from None
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:  # type: ignore[operator]
            raise ContractError(f"{self.name}:={text}: give {self._wanted()}")
        return value

    def _wanted(self) -> str:
        words = {int: "a whole number", float: "a number"}[self.kind]
        return words if self.low is None else f"{words} from {self.low} to {self.high}"


@dataclass(frozen=True)
class System:
    """A system: what it is for, its arguments, and the function that lists its nodes."""

    name: str
    description: str
    arguments: tuple[SystemArgument, ...]
    build: Callable[[dict[str, Value]], list[NodeSpec]]


def suggestion(word: str, known: object) -> str:
    """``" (did you mean 'x'?)"`` when a known word is close, else an empty string."""
    close = get_close_matches(word, list(known), n=1)  # type: ignore[call-overload]
    return f" (did you mean '{close[0]}'?)" if close else ""
