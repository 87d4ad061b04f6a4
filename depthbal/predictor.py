"""From an image to depth with a trained network, without the training engine."""

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from depthbal.checkpoint import (
    build_module,
    find_checkpoint,
    network_state,
    part_of_state,
    read_checkpoint,
)
from depthbal.data.images import read_image, resize_short_side, resize_square
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import DEPTH, Label
from depthbal.losses import LogLabelLoss, MSELoss, RegressionLoss
from depthbal.losses.log_labels import LogBalanceMap
from depthbal.losses.posthoc import BalanceMap
from depthbal.models.heads import take_range
from depthbal.models.weights import load_exactly
from depthbal.priors import Histogram

Readout = Literal["raw", "clamped", "mean", "median"]
AnyImage = NDArray[np.uint8] | str | os.PathLike[str]
Array = NDArray[np.float32]


class Predictor(nn.Module):
    """A network with all that is needed to turn an image into metres, or another label's units.

    Args:
        model: from normalised images (B, 3, H, W) to raw predictions (B, 1, h, w) in metres, or for
            `BinsLoss` to logits (B, bins, h, w).
        criterion: the loss it was trained with, whose `readout` turns raw predictions into
            balanced ones; None, or a loss without `readout`: the raw predictions are the answer.
        input_spec: `short_side` (pixels, or None to leave the size), `mean` and `std` of the three
            channels in units of 0 to 1; `size` resizes to a square of as many pixels.
        readout: how `predict` reads the network: `"raw"`, `"clamped"`, `"mean"`, or `"median"` for
            `BinsLoss`.
        label_range: (lowest, highest) metres that `"clamped"` keeps to; None: the criterion's.
        posthoc: balances the network's predictions before they are read out, in place of the
            criterion's `readout`; for networks trained with a plain loss.

    Raises:
        ConfigError: unknown readout, one that the loss has not, or an incomplete `input_spec`.

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
        if readout not in readouts_of(criterion):
            raise ConfigError(
                f"the read-out {readout!r} is BinsLoss's, not {type(criterion).__name__}'s"
            )
        if missing := [key for key in ("short_side", "mean", "std") if key not in input_spec]:
            raise ConfigError(f"input_spec lacks {', '.join(missing)}")
        self.model, self.criterion, self.posthoc = model, criterion, posthoc
        self.readout: Readout = readout
        self.label_range = label_range or getattr(criterion, "label_range", None)
        self.label = DEPTH
        self.short_side: int | None = input_spec["short_side"]
        self.square: int | None = input_spec.get("size")
        for name in ("mean", "std"):
            channels = torch.tensor(input_spec[name], dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the network's predictions of normalised images (B, 3, H, W) in all read-outs."""
        return self.read_out(self.decode(self.model(images)))

    def set_world(
        self, tau: float | None = None, relative_to: str | os.PathLike[str] | None = None
    ) -> "Predictor":
        """Choose the world of a network of `BinsLoss`, or of balancing afterwards; return itself.

        Args:
            tau: share of the balancing in [0, 1], 0 being the world of the training labels.
            relative_to: the world at 1: `"uniform"`, `"log_uniform"`, `"exp_uniform"`, or a file
                that `Histogram.save` wrote.

        Raises:
            ConfigError: another loss, or no such world.
        """
        if tau is None and relative_to is None:
            return self
        afterwards = self.posthoc is not None and tau is None
        if not (afterwards or hasattr(self.criterion, "set_world")):
            raise ConfigError(
                "tau and relative_to can be chosen when predicting only for a network of BinsLoss, "
                "relative_to also for one that is balanced afterwards; this one was trained with "
                f"{type(self.criterion).__name__}"
            )
        try:
            world = None if relative_to is None else str(relative_to)
            if self.posthoc is not None:
                self.posthoc = self.posthoc.relative_to(str(world))
                return self
            cast(Any, self.criterion).set_world(tau, world).log_ratio()
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return self

    def decode(self, outputs: Tensor) -> Tensor:
        """Return what is enlarged and read out of the network's outputs: see `BinsLoss`."""
        return self._loss.decode(outputs)

    def read_out(self, raw: Tensor, readouts: Sequence[Readout] | None = None) -> dict[str, Tensor]:
        """Return raw predictions, metres of any shape, read in the wanted ways, in float32.

        - `"raw"`: as the network gives them, of logits the mean in the world of the training;
        - `"clamped"`: cut to the label range;
        - `"mean"`: the posterior mean of the balanced world, as the loss defines it; the raw
          predictions where it defines none;
        - `"median"`: the posterior median, of logits only.

        With `posthoc` the three are those of the balanced predictions: `"raw"` is the location p
        that Balanced MSE would have learned.

        Raises:
            DataError: predictions to be balanced afterwards that are NaN or infinite.
        """
        raw = raw.float()
        if readouts is None:
            readouts = readouts_of(self.criterion)
        if parts := self._loss.read_parts(raw):
            return {name: parts[name] for name in readouts}
        balance = self.posthoc or getattr(self.criterion, "readout", None)
        location = self._locations(raw)
        maps: dict[str, Tensor] = dict.fromkeys(readouts, location)
        if "clamped" in maps and self.label_range is not None:
            maps["clamped"] = location.clamp(*self.label_range)
        if "mean" in maps and balance is not None:
            maps["mean"] = balance(raw).float()
        return maps

    def interval(self, raw: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the ends of the interval that holds 68.27 % of the labels if sigma is right.

        See `central_interval`. Of raw predictions, metres of any shape; None for a loss without
        sigma, or with noise that is not normal.

        Raises:
            DataError: predictions to be balanced afterwards that are NaN or infinite.
        """
        raw = raw.float()
        if self.posthoc is not None:
            self._locations(raw)  # refuses what cannot be balanced
            return self.posthoc.interval(raw)
        parts = self._loss.read_parts(raw)
        return (parts["low"], parts["high"]) if parts else self._loss.interval(raw)

    @property
    def _loss(self) -> RegressionLoss:
        """The criterion; in the place of none, or of another library's, a plain loss."""
        own = self.criterion
        return own if isinstance(own, RegressionLoss) else MSELoss()

    def _locations(self, raw: Tensor) -> Tensor:
        """Return the location p of each prediction."""
        try:
            return raw if self.posthoc is None else self.posthoc.locations(raw)
        except ValueError as error:
            raise DataError(f"the network's predictions cannot be balanced: {error}") from error

    @torch.no_grad()
    def predict_raw(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the network's own predictions at `size`, (B, 1, height, width) metres, float32.

        Enlarged bilinearly with align_corners=True, and read out afterwards, as the published code
        does; of logits there are as many maps as `BinsLoss.decode` gives. The network runs in the
        mode it is in.

        Args:
            images: (B, 3, H, W), normalised.
            size: (height, width) of the map.

        Raises:
            ConfigError: the network gives something else than one map per image.
        """
        return self.enlarge(self.decode(self.model(images)), size)

    def enlarge(self, raw: Tensor, size: Sequence[int]) -> Tensor:
        """Return a network's output (B, 1, h, w) at `size`, in float32; see `predict_raw`."""
        if not isinstance(raw, Tensor) or raw.ndim != 4 or raw.shape[1] != self._loss.n_parts:
            given = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
            raise ConfigError(
                f"expected a network of depth maps (B, 1, h, w), {type(self.model).__name__} gives "
                f"{given}"
            )
        raw = raw.float()
        if tuple(raw.shape[-2:]) != tuple(size):
            raw = F.interpolate(raw, size=tuple(size), mode="bilinear", align_corners=True)
        return raw

    def normalise(self, image: NDArray[np.uint8]) -> Tensor:
        """Return a uint8 (H, W, 3) RGB image as a batch of one, (1, 3, H, W) float32."""
        pixels = torch.tensor(image, device=self.mean.device).permute(2, 0, 1)
        return ((pixels.float() / 255 - self.mean) / self.std).unsqueeze(0)

    def picture(self, image: Tensor) -> NDArray[np.uint8]:
        """Return a normalised image (3, H, W) as uint8 (H, W, 3) RGB."""
        pixels = (image.to(self.mean.device) * self.std + self.mean).clamp(0, 1)
        return (255 * pixels).permute(1, 2, 0).round().byte().cpu().numpy()

    def prepare(self, image: AnyImage) -> tuple[Tensor, tuple[int, int]]:
        """Return an image as the network takes it, (1, 3, h, w), and its own (height, width).

        Raises:
            DataError: an unreadable file, or an array of another type or shape.
        """
        pixels = _pixels(image)
        size = pixels.shape[0], pixels.shape[1]
        if self.square is not None:
            pixels = resize_square(pixels, self.square)
        elif self.short_side is not None:
            pixels = resize_short_side(pixels, self.short_side, nearest=False)
        return self.normalise(pixels), size

    def predict(self, image: AnyImage, flip: bool = False, tile: int | None = None) -> Array:
        """Return the depth of one image at its own size, or its one label.

        Puts the predictor into evaluation mode.

        Args:
            image: uint8 (H, W, 3) RGB, or the path of an image file (grey is repeated over the
                channels, alpha is dropped).
            flip: average with the prediction of the mirrored image, (p(x) + flip p(flip x)) / 2,
                before it is balanced and read out: a mean of curved read-outs would be biased.
            tile: side of square tiles, pixels, for images that are large beside those of the
                training. The image is not resized; tiles overlap by a quarter and are blended
                before the read-out. A tile sees less than the whole image, and things larger, so
                that they seem nearer: a warning says so.

        Returns:
            float32 (H, W), metres, of a network of maps; () in label units of one of scalars; read
            as `self.readout` says.

        Raises:
            DataError: an unreadable file, or an array of another type or shape.
            ConfigError: tiles smaller than the network's size rule, or of a network that gives no
                maps, or whose scale is open.
        """
        return self.predict_with_interval(image, flip, tile)[0]

    @torch.no_grad()
    def predict_with_interval(
        self, image: AnyImage, flip: bool = False, tile: int | None = None
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """Return what `predict` does, and the ends of its 68 % interval; None without a sigma."""
        self.eval()
        raw = self._tiled(image, flip, tile) if tile else self._whole(image, flip)
        parts = [self.read_out(raw, (self.readout,))[self.readout], *(self.interval(raw) or ())]
        found, *ends = (part[0, 0] if raw.ndim > 2 else part[0] for part in parts)
        shown = [part.cpu().numpy() for part in (found, *ends)]
        return shown[0], (shown[1], shown[2]) if ends else None

    def _whole(self, image: AnyImage, flip: bool) -> Tensor:
        """Return raw labels (1,), or a raw map (1, 1, H, W) at the image's own size."""
        images, size = self.prepare(image)
        raw = self._seen(images, flip)
        return self.enlarge(raw, size) if raw.ndim > 2 else raw

    def _tiled(self, image: AnyImage, flip: bool, tile: int) -> Tensor:
        """Return the raw map (1, 1, H, W) of an image, blended from overlapping tiles."""
        pixels = _pixels(image)
        height, width = pixels.shape[:2]
        self._check_tiles(tile, min(height, width))
        blended, weights = torch.zeros(()), torch.zeros(height, width, device=self.mean.device)
        for top, left in product(_starts(height, tile), _starts(width, tile)):
            part = np.s_[..., top : top + tile, left : left + tile]
            rows, columns = weights[part].shape
            seen = self._seen(self.normalise(pixels[part[1:]]), flip)
            raw = self.enlarge(seen, (rows, columns))
            if not blended.ndim:
                blended = raw.new_zeros(*raw.shape[:2], height, width)
            weight = torch.outer(_ramp(rows, tile), _ramp(columns, tile)).to(weights)
            blended[part] += weight * raw
            weights[part] += weight
        return blended.div_(weights)

    def _seen(self, images: Tensor, flip: bool) -> Tensor:
        """Return the network's output, on request averaged with that of the mirrored images."""
        raw: Tensor = self.decode(self.model(images))
        if flip:
            mirrored = self.decode(self.model(images.flip(-1)))
            raw = torch.stack([raw, mirrored.flip(-1) if raw.ndim > 2 else mirrored]).mean(0)
        return raw

    def _check_tiles(self, tile: int, side: int) -> None:
        """Refuse tiles that cannot be put together; remind of what they do to the metres."""
        if getattr(self.criterion, "scale_invariance", 0) == 1:
            raise ConfigError(
                "tiles need a network of metric outputs; SILogLoss(scale_invariance=1) leaves the "
                "scale of every tile open"
            )
        if tile < (least := getattr(self.model, "multiple", 1)):
            raise ConfigError(
                f"tiles of {tile} pixels are smaller than the {least} that "
                f"{type(self.model).__name__} needs; give the size it was trained with, or more"
            )
        zoom = side / (self.short_side or side)
        seen = f" and {zoom:.2g} times enlarged, as if it were nearer" if zoom > 1 else ""
        warnings.warn(
            f"tiles of {tile} pixels see less than the whole picture{seen}; compare with a "
            "prediction without tiles",
            stacklevel=4,
        )

    @torch.no_grad()
    def outputs(self, image: AnyImage) -> dict[str, Array]:
        """Return the parts of a network that gives a NamedTuple of tensors, those of one image."""
        self.eval()
        parts = self.model(self.prepare(image)[0])._asdict()
        return {name: part[0].float().cpu().numpy() for name, part in parts.items()}


def _pixels(image: AnyImage) -> NDArray[np.uint8]:
    """Return an image's pixels, read where it is a file; anything else is a DataError."""
    pixels: Any = read_image(image) if isinstance(image, str | os.PathLike) else image
    shape: Any = getattr(pixels, "shape", ())
    dtype = getattr(pixels, "dtype", type(pixels).__name__)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise DataError(
            f"expected a path or a uint8 (H, W, 3) RGB array, got {dtype} {shape}; scale to 0 to "
            "255, repeat grey over three channels, drop alpha"
        )
    found: NDArray[np.uint8] = pixels
    return found


def _starts(side: int, tile: int) -> list[int]:
    """Return where the tiles of a side begin; they overlap by a quarter or more."""
    count = max(1, math.ceil((side - tile) / (tile - tile // 4)) + 1)
    return [round(start) for start in np.linspace(0, max(side - tile, 0), count)]


def _ramp(side: int, tile: int) -> Tensor:
    """Return weights that rise from a tile's borders over its overlap."""
    places = torch.arange(side) + 0.5
    return torch.minimum(places, side - places).clamp(max=max(tile // 4, 1))


def load_predictor(
    path: str | os.PathLike[str],
    classes: Iterable[type[nn.Module]] = (),
    device: str | torch.device = "cpu",
    checkpoint: Literal["last", "best"] = "last",
    posthoc_sigma: float | None = None,
    tau: float | None = None,
    relative_to: str | os.PathLike[str] | None = None,
) -> Predictor:
    """Open a trained model for prediction, running no code from the file and downloading nothing.

    Args:
        path: a run folder or a checkpoint file (.ckpt).
        classes: those of the network and the loss, needed only where they are not depthbal's own.
        device: where to predict.
        checkpoint: which one of a run folder.
        posthoc_sigma: balance the predictions of a network trained with a plain loss, as
            `balance_predictions` does, with the run's histogram and this sigma in label units.
        tau: share of the balancing that a network of `BinsLoss` is read out with, and
        relative_to: its world, as in `Predictor.set_world`; None: the training's settings.

    Returns:
        The predictor in evaluation mode; `predict(image)` is what it is for.

    Raises:
        RunFolderError: no such path, or a run folder without that checkpoint.
        CheckpointError: truncated, not written by depthbal, of another format, or of a class that
            must be passed.
        ConfigError: the device is not there, or `posthoc_sigma` is given and not positive, or the
            loss balances already, or `tau` or `relative_to` is given for another loss.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from depthbal import load_predictor
        >>> entry = {
        ...     "format": 2, "version": "0.2.0",
        ...     "model": {"class_path": "torch.nn.Conv2d", "init_args":
        ...         {"in_channels": 3, "out_channels": 1, "kernel_size": 1}},
        ...     "criterion": {"class_path": "depthbal.losses.MSELoss", "init_args": {}},
        ...     "input": {"short_side": 240, "mean": [0.5] * 3, "std": [0.2] * 3},
        ...     "readout": "raw", "label": ["depth", "m"], "label_range": None, "histogram": None,
        ... }
        >>> weights = {f"model.{k}": v for k, v in nn.Conv2d(3, 1, 1).state_dict().items()}
        >>> folder = getfixture("tmp_path")
        >>> torch.save({"depthbal": entry, "state_dict": weights}, folder / "last.ckpt")
        >>> load_predictor(folder / "last.ckpt").short_side
        240
    """
    file = find_checkpoint(path, checkpoint)
    content = read_checkpoint(file)
    entry, state = content["depthbal"], content["state_dict"]
    model = build_module(file, "model", entry["model"], classes)
    criterion = build_module(file, "criterion", entry["criterion"], classes)
    label_range = entry["label_range"] and tuple(entry["label_range"])
    if label_range:
        take_range(label_range, model, criterion)
    load_exactly(criterion, part_of_state(state, "criterion."), f"{file} into the criterion")
    load_exactly(model, network_state(content), f"{file} into {type(model).__name__}")
    predictor = Predictor(model, criterion, entry["input"], entry["readout"], label_range)
    predictor.label = Label(*entry["label"][:2])
    if posthoc_sigma is not None:
        stored = entry["histogram"] and Histogram.from_dict(entry["histogram"])
        predictor.posthoc = balance_map(criterion, stored, posthoc_sigma, label_range, str(path))
        predictor.label_range = predictor.posthoc.label_range
    predictor.set_world(tau, relative_to)
    try:
        return predictor.to(device).eval()
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(f"cannot predict on device {device}: {error}") from error


def readouts_of(criterion: nn.Module | None) -> tuple[Readout, ...]:
    """Return the read-outs that a loss's network has."""
    return getattr(criterion, "readouts", None) or get_args(Readout)[:3]


def balance_map(
    criterion: nn.Module | None,
    histogram: Histogram | None,
    noise_sigma: float,
    label_range: tuple[float, float] | None,
    what: str,
) -> BalanceMap:
    """Return the map that balances the raw predictions of a plain loss's network afterwards.

    It is exact for the squared error; predictions of other plain losses are taken for mean labels.
    Without `label_range` the histogram's ends are taken; `what` is whose network it is.
    """
    if not (math.isfinite(noise_sigma) and noise_sigma > 0):
        raise ConfigError(
            f"expected a positive sigma to balance with afterwards, got {noise_sigma}: "
            "sigma_from_rmse finds it from the network's RMSE on the validation split"
        )
    require_plain(criterion, what)
    if histogram is None or getattr(criterion, "event_dim", False):
        raise ConfigError(
            f"{what} cannot be balanced afterwards: it holds no histogram of scalar training labels"
        )
    ends = (float(histogram.edges[0]), float(histogram.edges[-1]))
    if isinstance(criterion, LogLabelLoss):
        return LogBalanceMap(histogram, noise_sigma, label_range or ends)
    return BalanceMap(histogram, noise_sigma, label_range or ends)


def require_plain(criterion: nn.Module | None, what: str) -> None:
    """Raise a ConfigError where a loss balances already."""
    if getattr(criterion, "balances", False):
        raise ConfigError(
            f"the network of {what} was trained with {type(criterion).__name__}, which balances "
            "already; only networks of plain losses such as MSELoss are balanced afterwards"
        )


def load_balance(
    path: str | os.PathLike[str], criterion: nn.Module | None, label: Label, what: str
) -> BalanceMap:
    """Return what `depthbal balance` wrote, for a plain loss's predictions of this label."""
    require_plain(criterion, what)
    try:
        balance = BalanceMap.load(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if balance.label not in (None, (label.name, label.unit)):
        raise ConfigError(
            f"{path} balances {' in '.join(balance.label)}, these predictions are "
            f"{label.name} in {label.unit}"
        )
    return balance
