#!/usr/bin/env python
"""``depthbal study``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("study"))
