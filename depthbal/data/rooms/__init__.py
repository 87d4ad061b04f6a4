"""Rooms rendered on the spot: the embedded data set, no download."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.data.rooms.cache import rooms_source
    from depthbal.data.rooms.datamodule import RoomsDataModule
    from depthbal.data.rooms.generate import random_scene
    from depthbal.data.rooms.render import render
    from depthbal.data.rooms.source import RoomsSource, room

_HOMES = {
    "RoomsDataModule": "depthbal.data.rooms.datamodule",
    "RoomsSource": "depthbal.data.rooms.source",
    "random_scene": "depthbal.data.rooms.generate",
    "render": "depthbal.data.rooms.render",
    "room": "depthbal.data.rooms.source",
    "rooms_source": "depthbal.data.rooms.cache",
}

__all__ = ["RoomsDataModule", "RoomsSource", "random_scene", "render", "room", "rooms_source"]


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'depthbal.data.rooms' has no attribute {name!r}")
