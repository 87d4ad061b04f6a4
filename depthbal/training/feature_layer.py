"""The layer of a network before which features are taken."""

from typing import cast

from torch import nn

from depthbal.errors import ConfigError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def find_layer(network: nn.Module, name: str | None = None) -> nn.Module:
    """Return a linear layer or convolution.

    Args:
        network: The network.
        name: Its name in ``network.named_modules()``; None takes the last one with one output,
            which for all our networks is the one that computes the prediction.

    Raises:
        ConfigError: There is none, or none of that name; names the last layers there are.

    Example:
        >>> find_layer(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))
        Linear(in_features=8, out_features=1, bias=True)
    """
    layers = {own: layer for own, layer in network.named_modules() if isinstance(layer, LAYERS)}
    known = ", ".join(list(layers)[-5:]) or "none"
    if name is not None:
        if name not in layers:
            raise ConfigError(
                f"{type(network).__name__} has no linear layer or convolution {name!r}; its last "
                f"ones are: {known}"
            )
        return layers[name]
    single = [layer for layer in layers.values() if _outputs(layer) == 1]
    if not single:
        raise ConfigError(
            f"{type(network).__name__} has no linear layer or convolution with one output; name "
            f"the one whose input is to be smoothed as layer. Its last ones are: {known}"
        )
    return single[-1]


def input_channels(layer: nn.Module) -> int:
    """Return the number of channels that a layer of `find_layer` takes.

    Example:
        >>> input_channels(nn.Conv2d(12, 1, 3))
        12
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return cast(nn.Conv2d, layer).in_channels


def _outputs(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return cast(nn.Conv2d, layer).out_channels
