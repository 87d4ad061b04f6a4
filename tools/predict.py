#!/usr/bin/env python
"""``depthbal predict``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("predict"))
