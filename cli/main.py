"""The `shipway` command: runs the asked command, and maps what failed to one line and an exit code."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from cli.errors import CommandError
from pipeline.definition.problems import DefinitionErrors
from pipeline.errors import PipelineError, SettingsError

_COMMANDS = {
    "up": "cli.up:up",
    "run": "cli.run:run",
    "lint": "cli.definition:lint",
    "plan": "cli.definition:plan",
    "schema": "cli.definition:schema",
    "runs": "cli.runs:runs",
    "run-show": "cli.runs:run_show",
    "logs": "cli.runs:logs",
    "retry": "cli.runs:retry",
    "cancel": "cli.runs:cancel",
    "approve": "cli.runs:approve",
    "debug": "cli.debug:debug",
    "services": "cli.services:services",
    "releases": "cli.services:releases",
    "deploy": "cli.services:deploy",
    "rollback": "cli.services:rollback",
    "move": "cli.move:move",
    "workers": "cli.workers:workers",
    "doctor": "cli.doctor:doctor",
    "engine": "engine.__main__:engine",
    "server": "server.__main__:server",
    "worker": "workers.__main__:worker",
    "registry": "cli.registry:registry",
}


class _Commands(click.Group):
    """Imports a command's module only when it is asked for: `shipway lint` should not wait for Celery."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shipway", message="shipway %(version)s")
@click.option("--debug", is_flag=True, help="Show where in the program an unexpected error happened.")
def shipway(debug: bool) -> None:
    """Push to git, and the new version of your service is built, tested, stored and rolled out.

    \b
    Begin with:   shipway up
    In a project: shipway lint && shipway run
    """


def main(arguments: list[str] | None = None) -> None:
    """The console script."""
    try:
        answer: Any = shipway.main(arguments, prog_name="shipway", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(_line(error), error.exit_code)
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except DefinitionErrors as errors:
        # file:line:column lines, as editors read them.
        click.echo(str(errors), err=True)
        sys.exit(2)
    except SettingsError as error:
        _fail(str(error), 2)
    except PipelineError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        # The reader has seen enough (`shipway runs | head`).
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if "--debug" in (sys.argv[1:] if arguments is None else arguments):
            raise
        told = " ".join(str(error).split())[:500]
        _fail(f"unexpected {type(error).__name__}: {told}: `shipway --debug …` shows where", 1)
    sys.exit(answer if isinstance(answer, int) else 0)


def _line(error: click.ClickException) -> str:
    """click's own complaints in one line, with the remedy."""
    what = " ".join(error.format_message().split()).removesuffix(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{what}: see `{context.command_path} --help`" if context else what


def _fail(message: str, code: int) -> None:
    click.echo(f"shipway: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
