"""The depth task: images to depth maps, scored on the balanced mask or by Eigen's protocol."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthbal.errors import ConfigError, DepthbalError, first_line
from depthbal.evaluation import DEPTH, GROUPS, LABEL_TERMS, TERMS, DepthBins, LabelBins, Scores
from depthbal.evaluation.protocols import DepthProtocol, depth_protocols
from depthbal.examples import save_examples
from depthbal.losses import RegressionLoss
from depthbal.predictor import readouts_of
from depthbal.training.task import Batch, Task

log = logging.getLogger(__name__)

SELECTION_BINS = 20  # up to the last depth; narrower ones are too empty to choose by


class DepthTask(Task):
    """Train a depth network with a masked regression loss.

    Depths below the data's range count for no loss. Before the optimizer exists the training
    split's histogram gives the loss its prior and the network its initial bias, unless a
    checkpoint is going to bring both. The best epoch has the lowest mean over 20 bins of RMSE (of
    0.5 m up to 10 m): every bin weighs as much as any other, so an epoch cannot win by near pixels
    alone.

    Args:
        model: Network from images (B, 3, H, W) to metres (B, 1, h, w). Its weights are kept in the
            memory layout channels_last; --trainer.precision is bf16-mixed unless given, where the
            device multiplies bfloat16, else 32-true.
        criterion: One of our losses by name (GAILoss, BMCLoss, BNILoss, MSELoss), or any module
            from predictions and targets to a scalar by its full class path.
        resize: "target" interpolates predictions of another size than the targets; null makes them
            an error.
        compile: Train with torch.compile of the network, which takes minutes at the first steps
            (no gain measured on CPUs; GPUs were not measured). Where it fails, a log line says why
            and the training goes on without. Checkpoints are the same.
        **kwargs: Of `Task`. On GPUs Adam and AdamW are fused unless their arguments say how to
            update (fused, foreach, capturable).

    Raises:
        ConfigError: Settings that contradict each other or the data.

    Example:
        >>> import torch
        >>> from depthbal.losses import MSELoss
        >>> task = DepthTask(nn.Conv2d(3, 1, 1), MSELoss())
        >>> batch = {"image": torch.zeros(2, 3, 4, 4), "depth": torch.ones(2, 1, 4, 4)}
        >>> task.training_loss(task.predict(batch), batch).shape
        torch.Size([])
    """

    logged_metrics = ("rmse", "abs_rel", "delta1")
    study_metrics = tuple(f"all_pixels.per_bin_mean.{group}.rmse" for group in GROUPS)
    protocols = DepthProtocol.NAMES

    def __init__(
        self,
        model: nn.Module,
        criterion: RegressionLoss | nn.Module,
        *,
        resize: Literal["target"] | None = "target",
        compile: bool = False,
        **kwargs: Any,
    ) -> None:
        # convolutions run up to six times as fast in this layout on a CPU, and faster on a GPU
        super().__init__(model.to(memory_format=torch.channels_last), criterion, **kwargs)
        self.label = DEPTH
        self.resize, self.compile_network = resize, compile
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self.test_options: dict[str, Any] | None = {}
        self._rules: list[DepthProtocol] = []

    def check_data(self, data: Any) -> None:
        """Check that the network takes the images, and depths as far as the data's."""
        end, high = getattr(self.model, "max_depth", None), data.label.range[1]
        if end is not None and end < high:  # of somebody's own network
            raise ConfigError(
                f"the network's depths end at {end:g} m, those of the data at {high:g} m; give it "
                "another end, or a method set_label_range((lo, hi))"
            )
        image = data.train_set[0]["image"]
        try:  # before a run folder is there
            with torch.no_grad():
                self.model.eval()(image[None])
        except DepthbalError:
            raise
        except Exception as error:  # whatever a network raises
            raise ConfigError(
                f"{type(self.model).__name__} does not take images of {image.shape[-2]} x "
                f"{image.shape[-1]} pixels: {first_line(error)}; --data.crop_size and "
                "--data.short_side set their size"
            ) from error
        finally:
            self.train(self.training)

    # ---- training ----

    def predict(self, batch: Batch) -> Tensor:
        """Return the network's depth (B, 1, h, w) in metres of batch["image"] (B, 3, H, W)."""
        if not self.compile_network or not self.training:
            return self.model(batch["image"])  # type: ignore[no-any-return]
        return self._predict_compiled(batch["image"])

    def _predict_compiled(self, images: Tensor) -> Tensor:
        """Call the network through torch.compile; where that fails, say so once and go on."""
        if self._compiled is None:  # a function: a module would double the checkpoint's entries
            self._compiled = torch.compile(self.model.forward)
        try:
            return self._compiled(images)
        except torch.OutOfMemoryError:
            raise
        # whatever a compiler raises; what the network itself raises comes again from the next line
        except Exception as error:
            preds: Tensor = self.model(images)
            self.compile_network = False
            cause = getattr(error, "inner_exception", error)  # the backend's own
            reason = f"{type(cause).__name__}: {cause}".strip().splitlines()[0]
            log.warning("The network could not be compiled and is trained without: %s", reason)
            return preds

    def target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return depth (B, 1, h, w) in metres and the mask of the pixels that count."""
        depth = batch["depth"]
        return depth, depth > 0 if self.label.range is None else depth >= self.label.range[0]

    def training_loss(self, raw: Tensor, batch: Batch) -> Tensor:
        """Return the loss at the size of the depth, to which predictions may be resized."""
        target = batch["depth"]
        channels = getattr(self.criterion, "n_bins", 1)
        if raw.shape[1:] != (channels, *target.shape[2:]):
            if self.resize is None or raw.ndim != 4 or raw.shape[:2] != (len(target), channels):
                raise ConfigError(
                    f"preds {tuple(raw.shape)} and target {tuple(target.shape)} differ; set "
                    "--model.resize target, or give --data.depth_size the size of the predictions"
                )
            if channels > 1:  # only BinsLoss enlarges logits itself
                target, mask = self.target(batch)
                return self.criterion(raw, target, mask, self.beyond(batch), enlarge=True)  # type: ignore[no-any-return]
            size = target.shape[-2:]
            raw = F.interpolate(raw, size=size, mode="bilinear", align_corners=True)
        return super().training_loss(raw, batch)

    # ---- scores ----

    def make_scores(self, data: Any, split: Literal["val", "test"]) -> Scores:
        """Return the empty scores of validation, or of the test by the first protocol."""
        if split == "val":
            low, high = self.label_range()
            count = SELECTION_BINS * (high // (high - low))
            bins: LabelBins = DepthBins.uniform(high / count, high)
            if zero := data.zero_is_label:
                bins = LabelBins(torch.linspace(low, high, SELECTION_BINS + 1))
            if data.bin_spacing != "uniform":
                edges = data.bin_edges(data.train_histogram(), SELECTION_BINS)
                bins = LabelBins(edges) if zero else DepthBins(edges)
            terms = LABEL_TERMS if zero else TERMS
            return Scores(bins, (self.readout,), self.readout, terms=terms, label=self.label)
        self._rules = depth_protocols(
            self.protocol, data, self.test_seed, **(self.test_options or {})
        )
        given = readouts_of(self.criterion), self.readout, self.facts(data)
        scores, *others = (rule.scores(*given) for rule in self._rules)
        self.test_beside = cast(Any, nn.ModuleList(others))
        return scores

    def score(self, batch: Batch, scores: Scores) -> None:
        """Read the network out at the depth's own size and add it to scores."""
        target, predictor = batch["depth"], self.predictor()
        raw = predictor.predict_raw(batch["image"], (target.shape[-2], target.shape[-1]))
        if scores is self.validation:
            maps = self.read_out(raw, target, batch, scores.readouts)
            scores.update(maps, *self.target(batch), batch["name"], indices=batch["index"])
            return
        maps = self.read_out(raw, target, batch, readouts_of(self.criterion))
        places = (batch["name"], batch["group"], batch["index"])
        ends, beyond = predictor.interval(raw), batch.get("beyond")
        for rule, one in zip(self._rules, (scores, *self.test_beside), strict=True):
            mask = rule.counts(target)
            every = rule.with_aligned(maps, target, mask)
            rule.update(one, every, target, mask, *places, ends, beyond)

    def test_loader(self, data: Any) -> Any:
        """Return the test images as training sees them, or whole."""
        return data.test_dataloader() if "nyud2_dir" in self.protocol else data.whole_images()

    @torch.no_grad()
    def save_examples(self, data: Any, folder: Path) -> None:
        """Write examples.npz and predictions/ of the images that the scores chose."""
        split, rule = self.test_loader(data).dataset, self._rules[0]
        predictor = self.predictor().eval()  # Lightning has put the training mode back
        scores = cast(Scores, self.test_scores)

        def show(index: int) -> tuple[Any, Any, Any]:
            sample = split[index]
            target = sample["depth"]
            raw = predictor.predict_raw(sample["image"][None].to(self.device), target.shape[1:])
            maps, truth = predictor.read_out(raw, (self.readout,)), target[None]
            found = rule.scored(rule.with_aligned(maps, truth, rule.counts(truth))[scores.main])
            shown = predictor.picture(sample["image"])
            return shown, target[0].numpy(), found[0, 0].float().cpu().numpy()

        save_examples(scores, show, folder, split.none)
