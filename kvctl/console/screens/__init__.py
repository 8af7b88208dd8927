"""The screens, by name, in the order of their numbers."""

from __future__ import annotations

from kvctl.console.page import Page
from kvctl.console.screens.events import Events
from kvctl.console.screens.faults import Faults
from kvctl.console.screens.hints import Hints
from kvctl.console.screens.keys import Keys
from kvctl.console.screens.nodes import Nodes
from kvctl.console.screens.overview import Overview
from kvctl.console.screens.plan import PlanScreen
from kvctl.console.screens.plots import Plots
from kvctl.console.screens.repair import Repair
from kvctl.console.screens.ring import RingScreen

SCREENS: dict[str, type[Page]] = {
    page.NAME: page
    for page in (Overview, RingScreen, Nodes, Hints, Repair, Faults, Events, Plots, Keys, PlanScreen)
}
