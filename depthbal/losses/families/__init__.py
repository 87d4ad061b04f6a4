"""Noise families: the densities over which a loss can be balanced."""
