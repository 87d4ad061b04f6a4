#!/usr/bin/env python
"""``depthbal prepare``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("prepare"))
