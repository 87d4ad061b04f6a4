#!/usr/bin/env python
"""``depthbal convert``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main("convert"))
