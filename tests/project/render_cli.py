"""Render docs/cli.md from the commands' own help. Run by `make docs`; tests/project compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from msgtrace.cli import admin, main

WIDTH = 100

PAGE = """\
# Command line

Rendered from the help of the commands by `make docs`.

Exit codes: 0 done · 1 one sentence on stderr says why not · 2 wrong usage · 130 Ctrl-C.

## Completion

The shell completes commands and flags after one of these lines in its start-up file:

| shell | file | lines |
|---|---|---|
{completions}

{commands}
"""

SHELLS = {
    "bash": ("~/.bashrc", 'eval "$({variable}=bash_source {program})"'),
    "zsh": ("~/.zshrc", 'eval "$({variable}=zsh_source {program})"'),
    "fish": ("~/.config/fish/config.fish", "{variable}=fish_source {program} | source"),
}


def render() -> str:
    """The whole page; the same on every machine."""
    groups = (main.main, admin.main)
    return PAGE.format(
        completions="\n".join(_completion(shell) for shell in SHELLS),
        commands="\n\n".join(
            section for group in groups for section in _sections(group, str(group.name))
        ),
    )


def completion_variable(program: str) -> str:
    """The variable by which a program is asked for its completion."""
    return f"_{program.replace('-', '_').upper()}_COMPLETE"


def _completion(shell: str) -> str:
    file, line = SHELLS[shell]
    lines = (
        line.format(variable=completion_variable(program), program=program)
        for program in ("msgtrace", "msgtrace-admin")
    )
    shown = "<br>".join(f"`{each.replace('|', chr(92) + '|')}`" for each in lines)
    return f"| {shell} | `{file}` | {shown} |"


def _sections(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[str]:
    """The command, and below it what it groups."""
    context = _context(command, name, parent)
    yield _section(command, context)
    if isinstance(command, click.Group):
        for inner_name, inner in command.commands.items():
            yield from _sections(inner, inner_name, context)


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    """The command as if it was called without arguments; nothing is run."""
    return command.make_context(
        name,
        [],
        parent,
        resilient_parsing=True,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )


def _section(command: click.Command, context: click.Context) -> str:
    help_text, heading = command.get_help(context), "##" if context.parent is None else "###"
    return f"{heading} {context.command_path}\n\n```text\n{help_text}\n```"


if __name__ == "__main__":
    sys.stdout.write(render())
