"""``depthbal demo``: a page on this machine that shows what balancing changes in a picture."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from depthbal.commands import make_parser
from depthbal.errors import ConfigError, DepthbalError

if TYPE_CHECKING:
    import gradio
    from torch import Tensor

    from depthbal.predictor import AnyImage, Array, Predictor

LONGEST_SIDE = 768
"""Pixels of the maps that are shown."""
CELLS = 512
"""Of the label range, and of the predictions, for the worlds of a balanced loss."""


class Dial(NamedTuple):
    """What can be turned: sigma of a plain loss's network, tau of the others."""

    name: str
    start: float
    highest: float
    about: str


def main(arguments: Sequence[str]) -> None:
    """Serve the page until Ctrl-C."""
    parser = make_parser(
        "demo",
        "A page on this machine only: drop a picture, see its depth, the 68 % interval and what "
        "balancing changes, and turn the dial. A network of a plain loss is balanced afterwards, "
        "with sigma as the dial; BinsLoss and the balanced losses are read out with a share tau of "
        'the balancing. Needs gradio: pip install "depthbal[demo]".',
        "runs/rooms-gai",
    )
    add = parser.add_argument
    add("run", type=Path, help="run folder or checkpoint of a network of depth maps")
    add("--checkpoint", choices=("last", "best"), default="last")
    add("--device", help="default: the first GPU, else cpu")
    add("--port", type=int, help="default: the first that is free from 7860 on")
    known = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:  # of the pictures that are dropped
        page = open_page(Demo(known.run, known.checkpoint, known.device), folder, known.port)
        print(f"{known.run}: {page.local_url} on this machine; Ctrl-C ends it", flush=True)
        page.block_thread()


class Demo:
    """A network, and how its depth maps are read out as the dial says.

    Raises:
        ConfigError: a network that gives no maps, or whose training labels are not known.
    """

    def __init__(self, path: Path, checkpoint: Any = "last", device: str | None = None) -> None:
        import numpy as np

        from depthbal.checkpoint import find_checkpoint, read_checkpoint
        from depthbal.commands.predict import open_predictor
        from depthbal.priors import Histogram

        self.path = path
        self.predictor: Predictor = open_predictor(path, checkpoint, device)
        stored = read_checkpoint(find_checkpoint(path, checkpoint))["depthbal"]["histogram"]
        if stored is None:
            raise ConfigError(
                f"{path} holds no histogram of its training labels, so nothing can be balanced: "
                "name a run that depthbal train wrote"
            )
        self.histogram = Histogram.from_dict(stored)
        ends = self.predictor.label_range or self.histogram.edges[[0, -1]].tolist()
        self.label_range: tuple[float, float] = ends[0], ends[1]
        criterion = self.predictor.criterion
        self.balances = getattr(criterion, "balances", False)
        self.has_worlds = hasattr(criterion, "set_world")
        if self.has_worlds:
            about = "share of the balancing that the distribution of every pixel is read out with"
            self.dial = Dial("tau", cast(Any, criterion).tau, 1.0, about)
        elif self.balances:
            about = "share of the balancing: 0 is the world of the training labels"
            self.dial = Dial("tau", 1.0, 1.0, about)
        else:
            self.dial = self._sigma(checkpoint)
        name, trained = self.predictor.label.name.capitalize(), type(criterion).__name__
        plain = "in the training labels' world" if self.balances else "as the network gives it"
        self.titles = f"{name} {plain}", f"{name}, balanced", "Change", "Width of the 68 % interval"
        self.about = f"Trained with {trained}; {name.lower()} in {self.predictor.label.unit}."
        self.maps(np.zeros((96, 128, 3), dtype=np.uint8), self.dial.start)  # errors before the page

    def _sigma(self, checkpoint: Any) -> Dial:
        """Return the dial of a plain loss, by default at the noise behind the validation RMSE."""
        from depthbal.losses import LogLabelLoss
        from depthbal.training.evaluate import posthoc_sigma
        from depthbal.training.runs import open_run

        if isinstance(self.predictor.criterion, LogLabelLoss):
            return Dial("sigma", 0.1, 0.5, "noise scale of logarithms: 0.1 is about 10 %")
        unit, (low, high) = self.predictor.label.unit, self.label_range
        start = float(f"{(high - low) / 10:.2g}")
        about = f"noise scale in {unit} to balance with; it starts at a tenth of the label range"
        with suppress(DepthbalError):  # a checkpoint alone has no validation error
            start, source = posthoc_sigma(open_run(self.path), checkpoint, "auto")
            about = f"noise scale in {unit} to balance with; it starts where it suits {source}"
        return Dial("sigma", start, 3 * start, about)

    def maps(self, image: "AnyImage", value: float) -> list["Array"]:
        """Return depth in the world of the training labels, balanced, and its interval's ends.

        (H, W) each, at most LONGEST_SIDE a side.
        """
        from depthbal.predictor import balance_map

        predictor, criterion = self.predictor, self.predictor.criterion
        if self.has_worlds:
            predictor.set_world(value)
        elif not self.balances:
            known = criterion, self.histogram, value, self.label_range, str(self.path)
            predictor.posthoc = balance_map(*known)
        batch, (height, width) = predictor.prepare(image)
        share = min(1.0, LONGEST_SIDE / max(height, width))
        raw = predictor.predict_raw(batch, (round(height * share) or 1, round(width * share) or 1))
        if self.balances and not self.has_worlds:
            plain, found = self._in_world(raw, 0.0)[0], self._in_world(raw, value)
        else:
            plain = raw if predictor.posthoc else predictor.read_out(raw, ("raw",))["raw"]
            ends = predictor.interval(raw)
            assert ends is not None
            found = [predictor.read_out(raw, ("mean",))["mean"], *ends]
        return [part[0, 0].detach().float().cpu().numpy() for part in (plain, *found)]

    def _in_world(self, locations: "Tensor", tau: float) -> list["Tensor"]:
        """Return mean and interval in the world p_train^(1 - tau) of a balanced loss's locations p.

            p_tau(y | p) ~ f(y - p; sigma(p)) k(y)^(1 - tau)

        k is what the loss divided by, p_train unless its own tau or relative_to say otherwise; at
        tau = 1 this is its own read-out, by sums over cells of the label range.
        """
        import numpy as np
        import torch

        from depthbal.losses import LogLabelLoss
        from depthbal.losses.bins import read_bins
        from depthbal.losses.readout import LEVEL

        loss: Any = self.predictor.criterion
        loss = getattr(loss, "main", loss)
        histogram, ends, locations = self.histogram, self.label_range, locations.double()
        if logarithms := isinstance(loss, LogLabelLoss):
            histogram, locations = histogram.logarithms(), locations.clamp(min=loss.floor).log()
            loss, ends = loss.loss, loss.loss.label_range
        kernel = histogram.relative_to(
            getattr(loss, "relative_to", "uniform"), getattr(loss, "tau", 1.0)
        )
        edges = np.linspace(*ends, CELLS + 1)
        centers = (edges[1:] + edges[:-1]) / 2
        masses = kernel.rebinned(edges).counts
        log_kernel = np.log(masses.clip(1e-9 * masses.max()))  # never no labels at all
        cells, offsets = (torch.from_numpy(one) for one in (centers, (1 - tau) * log_kernel))
        p = torch.linspace(float(locations.min()), float(locations.max()), CELLS).double()
        with torch.no_grad():
            sigma = loss.noise(p.to(locations.device)).cpu().double()
            energy = loss.family.energy(p - cells[:, None], sigma)
        labels = cells.exp() if logarithms else cells
        tables = read_bins(-energy, labels, offsets, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        flat = locations.cpu().numpy()
        return [torch.from_numpy(np.interp(flat, p.numpy(), table.numpy())) for table in tables]

    def show(self, picture: str | None, value: float) -> tuple[Any, ...]:
        """Return four pictures and their numbers in words, for the page."""
        import matplotlib
        import numpy as np

        from depthbal.examples import colour_depth

        if picture is None:
            return None, None, None, None, ""
        plain, balanced, *ends = self.maps(picture, value)
        both = np.stack([plain, balanced]).clip(*self.label_range)
        span = float(both.min()), float(both.max())
        change, width = balanced - plain, ends[1] - ends[0]
        most = max(float(np.abs(change).max()), 1e-6)
        scales = ("coolwarm", (change + most) / (2 * most)), ("viridis", width / width.max())
        pictures = [colour_depth(depth, span) for depth in both]
        pictures += [matplotlib.colormaps[n](x, bytes=True)[..., :3] for n, x in scales]
        colours = [f"blue {span[0]:.2f} to red {span[1]:.2f}"] * 2
        colours.append(f"grey unchanged, red more, blue less, up to {most:.2f}")
        colours.append(f"violet 0 to yellow {width.max():.2f}")
        unit, lines = self.predictor.label.unit, []
        parts = zip(self.titles, (plain, balanced, change, width), colours, strict=True)
        for title, part, said in parts:
            low, middle, high = np.quantile(part, (0, 0.5, 1))
            lines.append(
                f"- **{title}**: {low:.2f} to {high:.2f} {unit}, half of it below "
                f"{middle:.2f} ({said})"
            )
        return (*pictures, "\n".join(lines))


def open_page(demo: Demo, folder: str, port: int | None = None) -> "gradio.Blocks":
    """Serve the page on the loopback from a thread; nothing of it comes from or goes elsewhere.

    Pictures that are dropped lie in the folder while they are needed.
    """
    os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        import gradio as gr
    except ImportError as error:
        raise ConfigError(
            f'depthbal demo needs gradio ({error}): pip install "depthbal[demo]"'
        ) from error

    def show(picture: str | None, value: float) -> tuple[Any, ...]:
        try:
            return demo.show(picture, value)
        except DepthbalError as error:
            raise gr.Error(str(error), print_exception=False) from error

    dial = demo.dial
    step = 0.05 if dial.name == "tau" else float(f"{dial.highest / 60:.1g}")
    with gr.Blocks(analytics_enabled=False, title=f"depthbal demo: {demo.path}") as page:
        gr.Markdown(f"## {demo.path}\n{demo.about}")
        with gr.Row():
            picture = gr.Image(
                label="Your picture",
                type="filepath",  # depthbal reads it as depthbal predict does
                image_mode=None,
                sources=["upload", "clipboard"],
                buttons=["fullscreen"],  # no button that shares it
            )
            turned = gr.Slider(
                0.0 if dial.name == "tau" else step,
                dial.highest,
                dial.start,
                step=step,
                label=dial.name,
                info=dial.about,
            )
        shown = []
        for pair in (demo.titles[:2], demo.titles[2:]):
            with gr.Row():
                for title in pair:
                    buttons = {"buttons": ["download", "fullscreen"], "interactive": False}
                    shown.append(gr.Image(label=title, format="png", **buttons))
        numbers = gr.Markdown()
        gr.on(
            [picture.change, turned.change],
            show,
            [picture, turned],
            [*shown, numbers],
            api_name="depth",
            trigger_mode="always_last",
            show_progress="minimal",
        )
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=True,
            ssr_mode=False,
            footer_links=[],
            run_history=False,
        )
    except OSError as error:
        raise ConfigError(f"--port {port}: {error}") from error
    return page
