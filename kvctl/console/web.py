"""The console behind textual-serve: one process a browser tab, on loopback, for its own page only.

Promises: a request that names another host, and a socket that another site's page opens, are refused.
Never: listens elsewhere.
"""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from textual_serve.server import Server

HOST = "127.0.0.1"


class LocalServer(Server):
    """textual-serve, for this machine's own browser."""

    def initialize_logging(self) -> None:
        """Warnings only: a line a request helps nobody."""
        logging.basicConfig(level=logging.WARNING)

    async def on_startup(self, app: web.Application) -> None:
        """No banner: kvctl has said where it is."""

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._own_pages_only)
        return app

    @property
    def own(self) -> set[str]:
        """The names under which this machine's browser knows us."""
        return {f"{host}:{self.port}" for host in (HOST, "localhost")}

    @property
    def _own_pages_only(self) -> Middleware:
        own = self.own

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            origin = request.headers.get("Origin", "")
            if request.host not in own or (origin and origin.removeprefix("http://") not in own):
                raise web.HTTPForbidden(text="for pages of this server only")
            return await handler(request)

        return check


def serve_console(command: str, port: int) -> None:
    """Serve until Ctrl-C."""
    LocalServer(command, host=HOST, port=port, title="kvctl").serve()
