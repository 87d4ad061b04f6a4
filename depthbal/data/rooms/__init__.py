"""Rooms rendered on the spot: the embedded data set, no download."""

from depthbal.data.rooms.datamodule import RoomsDataModule, room

__all__ = ["RoomsDataModule", "room"]
