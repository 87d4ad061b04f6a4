#!/usr/bin/env python
"""Predict the depth of pictures: ``python tools/predict.py runs/rooms-gai room.jpg``."""

from collections.abc import Sequence

from depthbal.training.tool import run_tool


def main(arguments: Sequence[str]) -> None:
    """Run the prediction; see ``--help``."""
    from depthbal.training.predict_command import predict  # importing torch takes seconds

    predict(arguments)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
