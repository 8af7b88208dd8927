"""Plain coercion of plain parameters, so that `kvctl get` does not load pydantic.

Promises: strings, whole numbers and flags mean what they meant; a parameter of any other type is left to
typer. Never: needed for correctness: if typer changes inside, this does nothing and costs 70 ms.

Typer 0.29 coerces every parameter through a pydantic adapter, built on first use and kept in
`_runtime_param`. Filling that place beforehand with these few lines halves the start-up time.
"""

from __future__ import annotations

from typing import Any

import typer


class Plain:
    """What typer asks of a coercion."""

    def __init__(self, kind: type, least: float | None, most: float | None) -> None:
        self._kind = kind
        self._least = least
        self._most = most

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """A value of the command line as the type of its parameter. Raises typer's usage error."""
        if value is None or self._kind is str or isinstance(value, bool):
            return value
        try:
            number = int(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not a whole number", ctx=ctx, param=param) from None
        if (self._least is not None and number < self._least) or (self._most is not None and number > self._most):
            low = "any" if self._least is None else f"{self._least}"
            high = "any" if self._most is None else f"{self._most}"
            raise typer.BadParameter(f"{number} is not in {low}..{high}", ctx=ctx, param=param)
        return number


def quicken(command: Any) -> None:
    """Fill in the coercion of a command's plain parameters, and of the commands below it."""
    # The help option is made on demand and kept; made here, it can be filled in as well.
    for param in (*command.params, command.get_help_option(typer.Context(command))):
        descriptor = getattr(param, "type_descriptor", None)
        kind = getattr(descriptor, "annotation", None)
        if descriptor is None or kind not in (str, int, bool) or getattr(param, "_runtime_param", 0) is not None:
            continue
        info = descriptor.parameter_info
        if info.parser is None:
            param._runtime_param = Plain(kind, info.min, info.max)
    for below in getattr(command, "commands", {}).values():
        quicken(below)
