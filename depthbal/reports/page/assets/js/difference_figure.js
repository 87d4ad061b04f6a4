// The difference to the first method in every bin, with simultaneous bands.

defineFigure(
  "difference",
  ["metric", "binning", "shown", "bin"],
  (view) => {
    const info = metricInfo();
    const bands = view.data.bands[`${info.key}/${state.binning}`];
    if (!bands) {
      return { instead: `No difference of ${info.name}: not every run has it.` };
    }
    const shown = bands.filter((band) =>
      view.data.methods[band.method].runs.some((run) => state.shown[run]),
    );
    const head = headTrace(view, binning().low.map(() => 0));
    const traces = [head, ...shown.flatMap((band) => bandTraces(view, band, info))];
    return {
      traces,
      layout: layout(view, {
        hovermode: "x unified",
        xaxis: labelAxis(view),
        yaxis: axis(view.palette, {
          title: `Δ ${titled(info)}${DIRECTIONS[info.better]}`,
          fixedrange: true,
        }),
        shapes: [...binShapes(view, { panel: [0, 1] }), horizontal(view, 0)],
      }),
      table: binTable(
        view,
        shown.flatMap((band) => {
          const { name } = view.data.methods[band.method];
          return [
            [name, band.estimate],
            [`${name}, low`, band.low],
            [`${name}, high`, band.high],
          ];
        }),
      ),
    };
  },
  chooseOnClick,
);

const DIRECTIONS = { lower: ", ↓ better", higher: ", ↑ better", zero: "" };

/** Return one method's band and line. */
function bandTraces(view, band, info) {
  const bins = binning();
  const run = view.data.methods[band.method].runs[0];
  const { color } = lineOf(view, run);
  const name = plotText(view.data.methods[band.method].name);
  const unit = info.unit ? ` ${plotText(info.unit)}` : "";
  const line = binTraces(view, run, band.estimate, info.digits, info.unit);
  line[1].name = name;
  const ends = (bin) =>
    band.low[bin] === null
      ? "no band"
      : `[${fixed(band.low[bin], info.digits, true)}, ${fixed(band.high[bin], info.digits, true)}]`;
  const texts = band.estimate.map(
    (value, bin) => `${fixed(value, info.digits, true)}${unit} ${ends(bin)}`,
  );
  Object.assign(line[2], hovered(name, texts));
  return [
    {
      type: "scatter",
      mode: "lines",
      ...outline(bins, band),
      line: { width: 0 },
      fill: "toself",
      fillcolor: faded(color, 0.18),
      hoverinfo: "skip",
      showlegend: false,
    },
    ...line,
  ];
}

/** Return the outline of a band: one closed shape for every stretch of bins that have it. */
function outline(bins, { low, high }) {
  const x = [];
  const y = [];
  let upper = [];
  let lower = [];
  low.forEach((value, bin) => {
    if (value === null) {
      return;
    }
    const ends = [bins.low[bin], bins.high[bin]];
    upper.push(...ends.map((end) => [end, high[bin]]));
    lower.push(...ends.map((end) => [end, value]));
    if ((low[bin + 1] ?? null) === null) {
      const corners = [...upper, ...lower.reverse()];
      x.push(...corners.map((corner) => corner[0]), null);
      y.push(...corners.map((corner) => corner[1]), null);
      upper = [];
      lower = [];
    }
  });
  return { x, y };
}
