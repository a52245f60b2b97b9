"""What `msgtrace` and `msgtrace-admin` share: exit codes, error sentences, `--version`.

Exit codes: 0 done · 1 one sentence on stderr says why not · 2 wrong usage · 130 Ctrl-C.
A fault of ours still shows its traceback: hiding it would help nobody.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import click

from msgtrace.cli.text import clean
from msgtrace.errors import MsgtraceError

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


class CommandGroup(click.Group):
    """Commands in the order they were added; errors raised on purpose end as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The order of the definition, which is the order of a first day."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; MsgtraceError becomes exit code 1, Ctrl-C becomes 130."""
        try:
            return super().invoke(ctx)
        except MsgtraceError as error:
            raise click.ClickException(clean(str(error), max_chars=2_000)) from error
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)  # ends the line on which the terminal echoed ^C
            ctx.exit(EXIT_INTERRUPTED)


def print_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    """Print the version of the installed distribution and leave."""
    if not is_asked:
        return
    try:
        version = metadata.version("msgtrace")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    click.echo(f"msgtrace {version}")
    ctx.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)
