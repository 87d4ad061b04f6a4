#!/usr/bin/env python
"""``depthbal report``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("report"))
