"""`kvctl config`: contexts, what is set in them, and which source of a setting won.

Promises: `view --origin` shows for every setting the value that holds and where it came from.
Never: sets what no command reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kvctl import endpoints, settings
from kvctl.cli.base import Ctl, command, group
from kvctl.cli.words import Usage, form, seconds
from kvctl.errors import KvError

if TYPE_CHECKING:
    from kvctl.render import Object

app = group("Contexts: named places and preferences.")


def register(parent: typer.Typer) -> None:
    """Add this group."""
    parent.add_typer(app, name="config")


DEFAULT = "default"
"""The context that `config set` makes when none is in use."""


@command(app)
def view(
    ctl: Ctl, origin: Annotated[bool, typer.Option("--origin", help="Show where each value came from.")] = False
) -> None:
    """Show the settings that hold now."""
    from kvctl.output import Table, View, show

    entries: list[Object] = []
    for name in settings.KEYS:
        setting = ctl.setting(name)
        value, source = setting.value, setting.origin
        if name == "connect" and value is None:
            try:
                found = endpoints.resolve(None)
                value, source = ",".join(found.addresses), found.origin
            except KvError:
                source = "default"
        entries.append({"name": name, "value": value, "origin": source})
    entries.append({"name": "context", "value": settings.current_context(), "origin": "config.toml"})
    rows = tuple((e["name"], show(e["value"] or "-"), show(e["origin"])) for e in entries)
    table = Table(("NAME", "VALUE", "ORIGIN"), rows, wide_from=3)
    if not origin:
        entries = [{"name": e["name"], "value": e["value"]} for e in entries]
        table = Table(("NAME", "VALUE"), tuple(row[:2] for row in rows))
    ctl.show(View("config.view", {"settings": entries}, table, entries))


@command(app, "set")
def set_(
    ctl: Ctl,
    name: Annotated[str, typer.Argument(metavar="|".join(settings.KEYS), show_default=False)],
    value: Annotated[str, typer.Argument(metavar="VALUE", show_default=False, help="Empty: take it out.")],
    context: Annotated[
        str | None, typer.Option("--context", metavar="NAME", help="In this context; default: the current one.")
    ] = None,
) -> None:
    """Set something in a context. Without one in use, `default` is made and used."""
    if name not in settings.KEYS:
        raise Usage(f"there is no setting {name!r}: {', '.join(settings.KEYS)}")
    if value:
        {"connect": endpoints.parse, "output": form, "timeout": seconds}[name](value)
    current = settings.current_context()
    where = context or current or DEFAULT
    if not settings.NAME.fullmatch(where):
        raise Usage(f"{where!r} is no name: letters, digits and ._- only, 64 at most")
    every = settings.contexts()
    table = every.setdefault(where, {})
    if value:
        table[name] = value
    else:
        table.pop(name, None)
    settings.save(current or (where if context is None else None), every)
    _show_one(ctl, "config.set", where, table)


@command(app)
def use(
    ctl: Ctl,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="Use no context.")] = False,
) -> None:
    """Use a context, or a local cluster by its name."""
    if (name is None) != none:
        raise Usage("name either a context or --none", "kvctl config view")
    every = settings.contexts()
    if name is not None and name not in every:
        from kvctl import local

        try:
            every[name] = {"connect": ",".join(local.load(name).addresses)}
        except local.NoSuchObject:
            known = ", ".join(sorted({*every, *local.names()})) or "none"
            raise local.NoSuchObject(
                f"there is no context or local cluster {name}; known: {known}",
                f"kvctl config set connect HOST:PORT --context {name}",
            ) from None
    settings.save(name, every)
    _show_one(ctl, "config.use", name, every.get(name or "", {}))


@command(app)
def path(ctl: Ctl) -> None:
    """Print where the contexts and everything else of kvctl are kept."""
    from kvctl.output import Table, View, show

    home = endpoints.home().absolute()
    places = {"config": str(settings.config_path().absolute()), "clusters": str(home / "clusters")}
    places |= {"home": str(home), "reports": str(home / "reports")}
    rows = tuple((what, show(where)) for what, where in places.items())
    ctl.show(View("config.path", places, Table(("WHAT", "PATH"), rows)))


def _show_one(ctl: Ctl, command_name: str, context: str | None, table: dict[str, str]) -> None:
    from kvctl.output import Table, View, show

    rows = tuple((show(context or "-"), name, show(value)) for name, value in sorted(table.items()))
    data: Object = {"context": context, "settings": table}
    ctl.show(View(command_name, data, Table(("CONTEXT", "NAME", "VALUE"), rows)))
