"""``python -m depthbal COMMAND ...``."""

from depthbal.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
