"""``probed completion``: shell completion."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash:  eval "$(probed completion bash)"                                  in ~/.bashrc
    zsh:   eval "$(probed completion zsh)"                                   in ~/.zshrc
    fish:  probed completion fish > ~/.config/fish/completions/probed.fish
    """
    from click.shell_completion import get_completion_class

    from probed.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None, "click knows each shell of the choice"
    click.echo(kind(cli, {}, "probed", "_PROBED_COMPLETE").source())
