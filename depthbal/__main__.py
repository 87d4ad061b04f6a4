"""``python -m depthbal COMMAND ...``."""

from depthbal.commands import main

raise SystemExit(main())
