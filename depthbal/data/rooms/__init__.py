"""Rooms rendered on the spot: the embedded data set, no download."""

from depthbal.data.rooms.datamodule import RoomsDataModule, RoomsSource, room
from depthbal.data.rooms.generate import random_scene
from depthbal.data.rooms.render import render

__all__ = ["RoomsDataModule", "RoomsSource", "random_scene", "render", "room"]
