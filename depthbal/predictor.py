"""From an image to depth with a trained network, without the training engine."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from depthbal.afterwards import posthoc_balance
from depthbal.checkpoint import find_checkpoint, read_checkpoint
from depthbal.data.images import read_image, resize_short_side
from depthbal.errors import CheckpointError, ConfigError, DataError
from depthbal.losses.interval import central_interval, interval_of_loss
from depthbal.losses.posthoc import BalanceMap
from depthbal.models.weights import load_exactly
from depthbal.rebuilding import build_part, load_criterion, part_of_state

Readout = Literal["raw", "clamped", "mean"]


class Predictor(nn.Module):
    """A network with all that is needed to turn an image into metres.

    Args:
        model: from normalised images (B, 3, H, W) to raw predictions (B, 1, h, w) in metres.
        criterion: the loss it was trained with, whose `readout` turns raw predictions into
            balanced ones; None, or a loss without `readout`: the raw predictions are the answer.
        input_spec: `short_side` (pixels, or None to leave the size), `mean` and `std` of the three
            channels in units of 0 to 1.
        readout: which of the maps `predict` returns: `"raw"`, `"clamped"` or `"mean"`.
        label_range: (lowest, highest) metres that `"clamped"` keeps to; None: the criterion's.
        posthoc: balances the network's predictions before they are read out, in place of the
            criterion's `readout`; for networks trained with a plain loss.

    Raises:
        ConfigError: unknown readout, or an incomplete `input_spec`.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> from depthbal import Predictor
        >>> spec = {"short_side": None, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
        >>> network = nn.Conv2d(3, 1, kernel_size=1, bias=False)
        >>> _ = nn.init.constant_(network.weight, 1.0)
        >>> white = np.full((2, 3, 3), 255, dtype=np.uint8)
        >>> Predictor(network, None, spec).predict(white).tolist()
        [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module | None,
        input_spec: Mapping[str, Any],
        readout: Readout = "mean",
        label_range: tuple[float, float] | None = None,
        posthoc: BalanceMap | None = None,
    ) -> None:
        super().__init__()
        if readout not in get_args(Readout):
            raise ConfigError(f"readout must be one of {get_args(Readout)}, got {readout!r}")
        if missing := [key for key in ("short_side", "mean", "std") if key not in input_spec]:
            raise ConfigError(f"input_spec lacks {', '.join(missing)}")
        self.model = model
        self.criterion = criterion
        self.readout: Readout = readout
        self.label_range = label_range or getattr(criterion, "label_range", None)
        self.posthoc = posthoc
        self.short_side: int | None = input_spec["short_side"]
        for name in ("mean", "std"):
            channels = torch.tensor(input_spec[name], dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps of `predict_maps` at the network's own output size."""
        return self.read_out(self.model(images))

    def read_out(
        self, raw: Tensor, readouts: Sequence[Readout] = get_args(Readout)
    ) -> dict[str, Tensor]:
        """Return raw predictions read in the wanted ways, in float32.

        - `"raw"`: as the network gives them;
        - `"clamped"`: cut to the label range;
        - `"mean"`: the posterior mean of the balanced world, as the loss defines it; the raw
          predictions where it defines none.

        With `posthoc` the three are those of the balanced predictions: `"raw"` is the location p
        that Balanced MSE would have learned.

        Args:
            raw: the network's predictions in metres, any shape.
            readouts: which of the three; all by default.

        Raises:
            DataError: predictions to be balanced afterwards that are NaN or infinite.
        """
        raw = raw.float()
        balance = getattr(self.criterion, "readout", None)
        if self.posthoc is not None:
            balance = self.posthoc
        location = self._locations(raw)
        maps: dict[str, Tensor] = {}
        for readout in readouts:
            maps[readout] = location
            if readout == "clamped" and self.label_range is not None:
                maps[readout] = location.clamp(*self.label_range)
            elif readout == "mean" and balance is not None:
                maps[readout] = balance(raw).float()
        return maps

    def interval(self, raw: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the ends of the interval that holds 68.27 % of the labels if sigma is right.

        The central interval of the balanced world's posterior, N(p, sigma^2) truncated to the label
        range; see `central_interval`.

        Args:
            raw: the network's predictions in metres, any shape.

        Returns:
            Lower and upper ends in metres, float32, of the shape of `raw`; None for a loss without
            sigma, or with noise that is not normal.

        Raises:
            DataError: predictions to be balanced afterwards that are NaN or infinite.
        """
        raw = raw.float()
        if self.posthoc is not None:
            sigma, label_range = self.posthoc.noise_sigma, self.posthoc.label_range
            return central_interval(self._locations(raw), sigma, label_range)
        return interval_of_loss(self.criterion, raw)

    def _locations(self, raw: Tensor) -> Tensor:
        """Return the location p of each prediction."""
        if self.posthoc is None:
            return raw
        try:
            return self.posthoc.locations(raw)
        except ValueError as error:
            raise DataError(f"the network's predictions cannot be balanced: {error}") from error

    @torch.no_grad()
    def predict_raw(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the network's own predictions at `size`, (B, 1, height, width) metres, float32.

        Enlarged bilinearly with align_corners=True, as the published code does.

        Args:
            images: (B, 3, H, W), normalised.
            size: (height, width) of the map.

        Raises:
            ConfigError: the network gives something else than one map per image.
        """
        raw: Tensor = self.model(images).float()
        if raw.ndim != 4 or raw.shape[1] != 1:
            raise ConfigError(
                f"expected a network of depth maps (B, 1, h, w), {type(self.model).__name__} gives "
                f"{tuple(raw.shape)} for {len(images)} image(s)"
            )
        if tuple(raw.shape[-2:]) != tuple(size):
            raw = F.interpolate(raw, size=tuple(size), mode="bilinear", align_corners=True)
        return raw

    @torch.no_grad()
    def predict_maps(
        self,
        images: Tensor,
        size: tuple[int, int],
        readouts: Sequence[Readout] = get_args(Readout),
    ) -> dict[str, Tensor]:
        """Return depth at `size`, read in the wanted ways of `read_out`.

        The raw map is enlarged first (bilinear, align_corners=True) and read out afterwards, as
        the published code scores the enlarged prediction; the read-out is curved, so that the
        other order would give slightly other values between pixels. The network runs in the mode
        it is in: call `eval()` before, unless an engine does.

        Args:
            images: (B, 3, H, W), normalised.
            size: (height, width) of the maps.
            readouts: which of the three; all by default.

        Returns:
            `"raw"`, `"clamped"` and `"mean"`, each (B, 1, height, width) in metres.
        """
        return self.read_out(self.predict_raw(images, size), readouts)

    def normalise(self, image: NDArray[np.uint8]) -> Tensor:
        """Return a uint8 (H, W, 3) RGB image as a batch of one, (1, 3, H, W) float32."""
        pixels = torch.tensor(image, device=self.mean.device).permute(2, 0, 1)
        return ((pixels.float() / 255 - self.mean) / self.std).unsqueeze(0)

    def predict(self, image: NDArray[np.uint8] | str | os.PathLike[str]) -> NDArray[np.float32]:
        """Return the depth of one image at its own size.

        Puts the predictor into evaluation mode.

        Args:
            image: uint8 (H, W, 3) RGB, or the path of an image file (grey is repeated over the
                channels, alpha is dropped).

        Returns:
            float32 (H, W), metres, read as `self.readout` says.

        Raises:
            DataError: an unreadable file, or an array of another type or shape.
        """
        pixels = _checked_image(image)
        size = pixels.shape[:2]
        if self.short_side is not None:
            pixels = resize_short_side(pixels, self.short_side, nearest=False)
        self.eval()
        maps = self.predict_maps(self.normalise(pixels), (size[0], size[1]), (self.readout,))
        depth: NDArray[np.float32] = maps[self.readout][0, 0].cpu().numpy()
        return depth


def _checked_image(image: NDArray[np.uint8] | str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Return the pixels of a path or array."""
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"expected a path or a uint8 (H, W, 3) RGB array, got {type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(
            f"expected a uint8 (H, W, 3) RGB array, got {image.dtype} {image.shape}; scale to "
            "0 to 255, repeat grey over three channels, drop alpha"
        )
    return image


def load_predictor(
    path: str | os.PathLike[str],
    model: nn.Module | None = None,
    criterion: nn.Module | None = None,
    device: str | torch.device = "cpu",
    checkpoint: Literal["last", "best"] = "last",
    posthoc_sigma: float | None = None,
) -> Predictor:
    """Open a trained model for prediction, running no code from the file and downloading nothing.

    Args:
        path: a run folder or a checkpoint file (.ckpt).
        model: the network, needed only when its class is not one that depthbal registers; its
            parameters are replaced by the checkpoint's.
        criterion: the loss, likewise; a copy of it is filled.
        device: where to predict.
        checkpoint: which one of a run folder.
        posthoc_sigma: balance the predictions of a network trained with a plain loss, as
            `balance_predictions` does, with the run's histogram and this noise scale in metres.

    Returns:
        The predictor in evaluation mode; `predict(image)` is what it is for.

    Raises:
        RunFolderError: no such path, or a run folder without that checkpoint.
        CheckpointError: truncated, not written by depthbal, written by a newer depthbal, of
            another model, or of a class that must be passed as `model` or `criterion`.
        ConfigError: the device is not there, or `posthoc_sigma` is given and not positive, the loss
            balances already, or the run has no histogram.json.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from depthbal import load_predictor
        >>> entry = {
        ...     "format": 1, "version": "0.1.0",
        ...     "model": {"name": "torch.nn.Conv2d", "init_args": None},
        ...     "criterion": {"name": "MSELoss", "init_args": {}},
        ...     "input": {"short_side": 240, "mean": [0.5] * 3, "std": [0.2] * 3},
        ...     "readout": "raw", "label_range": None,
        ... }
        >>> weights = {f"model.{k}": v for k, v in nn.Conv2d(3, 1, 1).state_dict().items()}
        >>> folder = getfixture("tmp_path")
        >>> torch.save({"depthbal": entry, "state_dict": weights}, folder / "last.ckpt")
        >>> predictor = load_predictor(folder / "last.ckpt", model=nn.Conv2d(3, 1, 1))
        >>> predictor.short_side
        240
    """
    file = find_checkpoint(path, checkpoint)
    content = read_checkpoint(file)
    entry, state = content["depthbal"], content["state_dict"]
    model = build_part(file, "model", entry["model"]) if model is None else model
    if criterion is None:
        criterion = build_part(file, "criterion", entry["criterion"])
    else:
        criterion = copy.deepcopy(criterion)  # the caller's stays whole should the rest fail
    label_range = entry["label_range"] and tuple(entry["label_range"])
    try:
        predictor = Predictor(model, criterion, entry["input"], entry["readout"], label_range)
    except ConfigError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if posthoc_sigma is not None:
        predictor.posthoc = posthoc_balance(file, criterion, posthoc_sigma, predictor.label_range)
        predictor.label_range = predictor.posthoc.label_range
    load_criterion(criterion, part_of_state(state, "criterion."), file)
    load_exactly(
        model, part_of_state(state, "model."), f"{file} into the model {type(model).__name__}"
    )
    try:
        return predictor.to(device).eval()
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(f"cannot predict on device {device}: {error}") from error
