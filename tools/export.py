#!/usr/bin/env python
"""``depthbal export``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("export"))
