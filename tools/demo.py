#!/usr/bin/env python
"""``depthbal demo``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("demo"))
