"""The ``rl100`` command.

Starting it must be quick, so every command imports what it needs when it runs, and whole groups
of commands that live in other modules are loaded only when they are called.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from rl100_contracts.errors import ContractError, Interrupted, fail
from rl100_trainer.command import call

TRACEBACK_VARIABLE = "RL100_TRACEBACK"

app = typer.Typer(
    name="rl100",
    help="Robot learning from a few demonstrations, on ROS 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
task_app = typer.Typer(no_args_is_help=True, help="Check task files.")
bundle_app = typer.Typer(no_args_is_help=True, help="Check policy bundles.")
app.add_typer(task_app, name="task")
app.add_typer(bundle_app, name="bundle")

#: Commands that live elsewhere: name -> (module, attribute, help). The attribute is a typer app
#: (a group of commands) or a function (one command).
ELSEWHERE = {
    "train": ("rl100_trainer.cli", "app", "Train a policy on recorded episodes."),
    "episodes": ("rl100.episodes_cli", "app", "List and check recorded episodes."),
    "demo": ("rl100.demo.cli", "demo", "Record, train, deploy and evaluate in the simulator."),
    "iterate": ("rl100.iterate_cli", "iterate", "Learn a task with all stages, in simulation."),
    "calibrate": ("rl100.calibrate.cli", "app", "Calibrate cameras: boards, poses, checks."),
    "view": ("rl100.view.cli", "view", "Draw what the cameras give the policy."),
    "arm": ("rl100.gateway_cli", "arm", "Let the policy move the robot."),
    "stop": ("rl100.gateway_cli", "stop", "Stop the robot."),
    "mode": ("rl100.gateway_cli", "mode", "Show or change who may move the robot."),
    "load": ("rl100.policy_cli", "load", "Have the running policy load another bundle."),
    "status": ("rl100.status_cli", "status", "Show what runs, and how well."),
    "eval": ("rl100.eval_cli", "evaluate", "Evaluate a policy bundle in the simulator."),
}


def command_elsewhere(command: str, module: str, attribute: str) -> Any:
    """The click command, or group of commands, that lives in another module.

    Raises:
        ContractError: a module that the command needs is not there.
    """
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ContractError(
            f"'rl100 {command}' needs the Python module {error.name}, which is not there: "
            "run make setup, and start through ./rl100"
        ) from error
    parent = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    if not isinstance(found, typer.Typer):
        parent.command()(found)
        return typer.main.get_command(parent)
    # By way of a parent, so that an app with a single command keeps that command's name.
    parent.add_typer(found, name=command)
    group: Any = typer.main.get_command(parent)
    return group.commands[command]


def run_elsewhere(command: str, module: str, attribute: str, arguments: list[str]) -> None:
    """Load and run a command that lives in another module; raises as the two functions above."""
    call(command_elsewhere(command, module, attribute), arguments, f"rl100 {command}")


def _mount(command: str, module: str, attribute: str, help_text: str) -> None:
    def run(context: typer.Context) -> None:
        run_elsewhere(command, module, attribute, context.args)

    settings = {
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    }
    app.command(command, help=help_text, context_settings=settings)(run)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what was found on this machine, and what to do about what is missing."""
    from rl100.doctor import run_doctor

    raise typer.Exit(run_doctor(as_json=as_json))


@app.command()
def up(
    system: Annotated[str, typer.Argument(help="deploy, record, rollout, train, sim ...")] = "",
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY:=VALUE]...", help="see --show-args")
    ] = None,
    only: Annotated[str, typer.Option(help="Run one node of the system in this terminal.")] = "",
    log_dir: Annotated[
        Path | None, typer.Option(help="Folder of the log files (default: below ~/.ros/log).")
    ] = None,
    show_args: Annotated[
        bool, typer.Option("--show-args", "-s", help="Show the system's arguments and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the command of each node and stop.")
    ] = False,
) -> None:
    """Start a system: all its processes, until Ctrl-C or until a node that it needs ends."""
    from rl100 import up_command

    if not system:
        up_command.print_systems()
    elif show_args:
        up_command.print_arguments(system)
    elif dry_run:
        up_command.print_commands(system, arguments or [])
    elif only:
        up_command.run_one(system, arguments or [], only)
    else:
        raise typer.Exit(up_command.run_system(system, arguments or [], log_dir))


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Name of the benchmark; see --list.")] = "",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file too.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions.")] = False,
    task: Annotated[str, typer.Option(help="learn: push, reach or metaworld:<task>.")] = "",
    seeds: Annotated[int, typer.Option(min=1, max=99, help="learn: how many seeds.")] = 1,
    first_seed: Annotated[
        int, typer.Option(min=0, max=9999, help="learn: the first of the seeds.")
    ] = 0,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="learn: section.key=value; policy, perception: key=value."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the logs; learn: of the runs, which go on; policy: of bundles and plot."
        ),
    ] = None,
    openvino: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="policy: environment with onnxruntime-openvino; made when it is missing.",
        ),
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the benchmarks.")] = False,
) -> None:
    """Measure, and print figures with their uncertainty."""
    from rl100.metaworld.switch import enter_environment

    enter_environment(task)
    from rl100.bench.command import print_benches, run_bench
    from rl100.bench.frame import Options

    if show_list:
        print_benches()
    elif not name:
        raise ContractError("give the name of a benchmark; rl100 bench --list shows them")
    else:
        options = Options(
            quick=quick,
            task=task,
            seeds=seeds,
            first_seed=first_seed,
            overrides=tuple(overrides or ()),
            folder=out or Path("runs") / f"bench-{name}",
            openvino=openvino,
        )
        run_bench(name, options, json_file=json_file)


@task_app.command("check")
def task_check(
    task: Annotated[str, typer.Argument(help="Task file, or the name of a built-in task.")],
) -> None:
    """Check a task file and print what it says."""
    from rl100.check_command import print_task

    print_task(task)


@bundle_app.command("check")
def bundle_check(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    task: Annotated[str, typer.Option(help="Check that it fits this task too.")] = "",
) -> None:
    """Check a policy bundle: manifest, every file, and the task that it was trained for."""
    from rl100.check_command import print_bundle

    print_bundle(bundle, task)


for _command, _target in ELSEWHERE.items():
    _mount(_command, *_target)


def main() -> NoReturn:
    """Run the command; a mistake gives one sentence and an exit status, never a traceback.

    Exit status: 2 for a user's mistake, 130 after Ctrl-C, 1 for anything unforeseen and for what a
    command that looks for faults has found.
    """
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # ./rl100 holds Ctrl-C back
        call(typer.main.get_command(app), None, "rl100")
    except SystemExit as end:
        if end.code == 130:  # typer's answer to Ctrl-C, without a word
            fail("interrupted", code=130)
        raise
    except ContractError as error:
        fail(str(error))
    except (KeyboardInterrupt, Interrupted) as error:
        fail(str(error) or "interrupted", code=130)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        if isinstance(error, OSError) and error.filename:
            fail(f"{error.filename}: {error.strerror}", code=1)
        text = " ".join(str(error).split()) or "no reason given"
        fail(f"{type(error).__name__}: {text} (set {TRACEBACK_VARIABLE}=1 to see where)", code=1)
    sys.exit(0)


if __name__ == "__main__":
    main()
