"""docs/commands.md: every command, argument and option, and none that is not there."""

from __future__ import annotations

import re

import click
import pytest

from mcp_sessions.cli import COMMANDS, main

from .conftest import ROOT

TEXT = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def every_command() -> dict[str, click.Command]:
    """Those of a group under both names."""
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        one = command(name)
        parts = one.commands if isinstance(one, click.Group) else {}
        found |= {f"{name} {part}": of for part, of in parts.items()} or {name: one}
    return found


EVERY = every_command()


def test_every_command_has_its_section_in_the_same_order() -> None:
    assert list(SECTIONS) == list(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_the_usage_of_a_command_is_documented(name: str) -> None:
    of = EVERY[name]
    context = click.Context(of, info_name=name)
    words = [param.make_metavar(context) for param in of.params if isinstance(param, click.Argument)]
    usage = " ".join(["mcp-sessions", name, *(word if name != "install" else "CLIENT" for word in words)])
    assert f"`{usage}`" in SECTIONS[name]


@pytest.mark.parametrize("name", EVERY)
def test_the_options_of_a_command_are_documented_and_no_others(name: str) -> None:
    of = EVERY[name]
    context = click.Context(of, info_name=name)
    options = [param for param in of.params if isinstance(param, click.Option) and not param.hidden]
    written = {
        " ".join([", ".join(option.opts), *([] if option.is_flag else [option.make_metavar(context)])])
        for option in options
    }
    assert set(re.findall(r"^- `(-[^`]*)`", SECTIONS[name], re.MULTILINE)) == written
