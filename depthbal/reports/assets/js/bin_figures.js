// Figures over the label in bins: error, difference and bias.

// The error in every bin, above the training labels and the prior.

const TRAINING_PANEL = [0, 0.25];

/** Return where the errors and the strip of the shots are, with or without training labels below. */
function errorParts(below) {
  return below ? { panel: [0.33, 1], strip: [0.262, 0.3] } : { panel: [0.07, 1], strip: [0, 0.038] };
}

defineFigure(
  "error",
  ["metric", "binning", "subset", "readout", "shown", "bin"],
  (view) => {
    const info = metricInfo();
    const runs = shownRuns().filter((run) => binNumbers(run)?.[info.key]);
    const values = runs.map((run) => binNumbers(run)[info.key]);
    const known = values.flat().filter((value) => value !== null);
    const low = Math.min(0, ...known);
    const below = trainingTraces(view);
    const { panel, strip } = errorParts(below.length > 0);
    const traces = [
      headTrace(view, binning().low.map(() => low)),
      ...runs.flatMap((run, at) => binTraces(view, run, values[at], info.digits, info.unit)),
      ...below,
    ];
    return {
      traces,
      layout: layout(view, {
        hovermode: "x unified",
        bargap: 0,
        xaxis: labelAxis(view, { axis: below.length ? { anchor: "y2" } : { anchor: "free", position: 0 } }),
        yaxis: axis(view.palette, {
          title: titled(info),
          domain: panel,
          fixedrange: true,
          ...errorRange(info, known),
        }),
        yaxis2: axis(view.palette, {
          title: view.narrow ? "train" : `training<br>% per ${one(view.data.label.unit) || "unit"}`,
          domain: TRAINING_PANEL,
          rangemode: "tozero",
          nticks: 3,
          fixedrange: true,
        }),
        shapes: [
          ...binShapes(view, { strip, panel }),
          ...zeroLine(view, info),
        ],
        annotations: shotNames(view, (strip[0] + strip[1]) / 2),
      }),
      table: binTable(view, runs.map((run, at) => [view.data.runs[run].name, values[at]])),
    };
  },
  chooseOnClick,
);

/** Errors start at 0, shares end at 1; a bias has both signs. */
function errorRange(info, known) {
  if (info.better === "higher") {
    return { range: [0, 1.02] };
  }
  return info.better === "zero" || known.length === 0 ? {} : { rangemode: "tozero" };
}

function zeroLine(view, info) {
  return info.better === "zero" ? [horizontal(view, 0)] : [];
}

/** Return a thin line across a panel. */
function horizontal(view, y) {
  const line = { color: view.palette.muted, width: 1 };
  return { type: "line", layer: "below", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line };
}

/** Return the histogram of the training labels, coloured by shot, and the priors above it. */
function trainingTraces(view) {
  const { training, priors, label } = view.data;
  const { palette } = view;
  const traces = [];
  if (training) {
    const widths = training.density.map((_, bin) => training.edges[bin + 1] - training.edges[bin]);
    traces.push({
      type: "bar",
      name: "training labels",
      x: training.edges.slice(0, -1),
      y: training.density,
      width: widths,
      offset: 0,
      marker: {
        color: training.shots.map((shot) => palette.shots[shot] ?? palette.rule),
        line: { width: 0 },
      },
      yaxis: "y2",
      hoverinfo: "skip",
      showlegend: false,
    });
  }
  for (const prior of priors) {
    const several = priors.length > 1;
    traces.push({
      type: "scatter",
      mode: "lines",
      name: `prior, ${prior.components} normals`,
      x: prior.x,
      y: prior.density,
      yaxis: "y2",
      line: {
        color: several ? palette.runs[view.data.runs[prior.runs[0]].colour] : palette.ink,
        width: 1.5,
      },
      hoverinfo: "skip",
    });
  }
  return label ? traces : [];
}

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

// The bias in every bin: what Balanced MSE removes.

defineFigure(
  "bias",
  ["binning", "subset", "readout", "shown", "bin"],
  (view) => {
    const info = view.data.metrics.find((found) => found.key === "bias");
    const runs = shownRuns().filter((run) => binNumbers(run)?.bias);
    const values = runs.map((run) => binNumbers(run).bias);
    return {
      traces: [
        headTrace(view, binning().low.map(() => 0)),
        ...runs.flatMap((run, at) => binTraces(view, run, values[at], info.digits, info.unit)),
      ],
      layout: layout(view, {
        hovermode: "x unified",
        xaxis: labelAxis(view),
        yaxis: axis(view.palette, { title: titled(info), fixedrange: true }),
        shapes: [...binShapes(view, { panel: [0, 1] }), horizontal(view, 0)],
      }),
      table: binTable(view, runs.map((run, at) => [view.data.runs[run].name, values[at]])),
    };
  },
  chooseOnClick,
);
