"""The screens, by name."""

from __future__ import annotations

from kvctl.console.page import Page
from kvctl.console.screens.overview import Overview

SCREENS: dict[str, type[Page]] = {page.NAME: page for page in (Overview,)}
