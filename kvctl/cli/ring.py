"""`kvctl ring`: who owns what, now and once everything has moved.

Promises: the ring of the node that was asked, with its epoch. Never: waits for a transfer.
"""

from __future__ import annotations

import typer

from kvctl.cli.base import Ctl, command, group

app = group("The ring: members, and the owners of every partition.")


def register(parent: typer.Typer) -> None:
    """Add this group."""
    parent.add_typer(app, name="ring")


@command(app)
def show(ctl: Ctl) -> None:
    """The members, what each owns, and what is on its way."""
    from kvctl.render_shape import ring_view

    ctl.show(ring_view(ctl.client().status()))


@command(app)
def owners(ctl: Ctl) -> None:
    """The owners of every partition, and who is to own it next."""
    from kvctl.render_shape import owners_view

    ctl.show(owners_view(ctl.client().status().ring))
