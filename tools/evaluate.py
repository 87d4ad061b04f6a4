#!/usr/bin/env python
"""``depthbal evaluate``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("evaluate"))
