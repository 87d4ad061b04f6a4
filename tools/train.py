#!/usr/bin/env python
"""``depthbal train``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("train"))
