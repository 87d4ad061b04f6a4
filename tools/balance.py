#!/usr/bin/env python
"""``depthbal balance``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("balance"))
