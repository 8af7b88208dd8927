"""The help of a screen, made of the bindings that are in force on it.

Promises: a key that works is listed, one that does not is not. Never: written by hand.
"""

from __future__ import annotations

from textwrap import wrap

from textual.screen import Screen

from kvctl.console.widgets.tones import Line

KEYS = 15
"""Cells of the keys, before what they do."""


def help_lines(screen: Screen[None], width: int = 100) -> list[Line]:
    """Keys and what they do: those of the screen first, then those of every screen."""
    here: dict[str, tuple[str, str, str, list[str]]] = {}
    groups: dict[str, list[str]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if not active.enabled or binding.system or not binding.tooltip:
            continue
        owner = (
            "Everywhere"
            if active.node is screen.app
            else "On this screen"
            if active.node is screen
            else "In the list"
        )
        if not binding.id:
            continue  # Textual's own: whoever knows it has no need of it, and ours do the same
        if binding.action not in here:
            here[binding.action] = (owner, binding.tooltip, binding.id, [])
            groups.setdefault(owner, []).append(binding.action)
        here[binding.action][3].append(
            screen.app.get_key_display(binding) if not binding.key_display else binding.key_display
        )
    lines: list[Line] = []
    for owner in ("On this screen", "In the list", "Everywhere"):
        if owner in groups:
            lines += [(("", "plain"),)] if lines else []
            lines += [((owner, "head"),)]
            for action in groups[owner]:
                _, about, name, keys = here[action]
                parts = wrap(f"{about}  ({name})", max(16, width - KEYS))
                shown = f"  {' '.join(dict.fromkeys(keys))}"
                lines += [((f"{shown if i == 0 else '':<{KEYS}}", "accent"), part) for i, part in enumerate(parts)]
    return lines
