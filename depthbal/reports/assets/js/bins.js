// Parts of the figures whose axis is the label, in bins.

/** Return rectangles behind a panel: the shots as a strip, and bins of few images as a veil. */
function binShapes(view, { strip, panel }) {
  const { data, palette } = view;
  const bins = binning();
  const shapes = [];
  if (panel) {
    for (const [low, high] of weakStretches(view)) {
      shapes.push({
        ...rectangle("x", low, high, panel[0], panel[1], palette.veil),
        name: "weak",
      });
    }
    shapes.push(chosenShape(view, panel));
  }
  if (strip) {
    const first = bins.low[0];
    const last = bins.high[bins.high.length - 1];
    for (const band of data.shotBands) {
      const low = Math.max(band.low, first);
      const high = Math.min(band.high, last);
      if (low < high) {
        shapes.push(rectangle("x", low, high, strip[0], strip[1], palette.shots[band.shot]));
      }
    }
  }
  return shapes;
}

function rectangle(xref, x0, x1, y0, y1, fillcolor) {
  return { type: "rect", layer: "below", xref, yref: "paper", x0, x1, y0, y1, fillcolor, line: { width: 0 } };
}

/** Return the outline of the chosen bin. */
function chosenShape(view, panel) {
  const bins = binning();
  const shape = rectangle("x", bins.low[state.bin], bins.high[state.bin], panel[0], panel[1]);
  return { ...shape, fillcolor: faded(view.palette.accent, 0.16), line: { color: view.palette.accent, width: 1 } };
}

/** Return [low, high] of neighbouring bins that too few images support. */
function weakStretches(view) {
  const bins = binning();
  const stretches = [];
  bins.images[view.subset].forEach((images, bin) => {
    if (images >= view.data.weakBelow) {
      return;
    }
    const last = stretches[stretches.length - 1];
    if (last && last[1] === bins.low[bin]) {
      last[1] = bins.high[bin];
    } else {
      stretches.push([bins.low[bin], bins.high[bin]]);
    }
  });
  return stretches;
}

/** Return the name of every shot where its widest band leaves room. */
function shotNames(view, y) {
  const bins = binning();
  const first = bins.low[0];
  const last = bins.high[bins.high.length - 1];
  const place = bins.log ? Math.log : (value) => value;
  const share = (band) =>
    (place(Math.min(band.high, last)) - place(Math.max(band.low, first))) / (place(last) - place(first));
  const names = [];
  for (const shot of ["many", "medium", "few"]) {
    const bands = view.data.shotBands.filter((band) => band.shot === shot && band.high > first);
    const widest = bands.sort((a, b) => share(b) - share(a))[0];
    if (widest && share(widest) * view.width > 9 * shot.length) {
      const middle = (place(Math.max(widest.low, first)) + place(Math.min(widest.high, last))) / 2;
      names.push({
        text: shot,
        x: bins.log ? middle / Math.LN10 : middle,
        y,
        xref: "x",
        yref: "paper",
        yanchor: "middle",
        showarrow: false,
        font: { size: 11, color: view.palette.ink },
      });
    }
  }
  return names;
}

/** Return the invisible trace whose hover text heads the others: which bin, how well supported. */
function headTrace(view, values) {
  const bins = binning();
  const text = bins.low.map((low, bin) => {
    const place = interval(low, bins.high[bin], view.data.label.unit);
    return `<b>${place}</b>, ${shotText(bins.shots[bin])}${supportText(view.subset, bin)}`;
  });
  return {
    type: "scatter",
    mode: "markers",
    marker: { opacity: 0 },
    x: centers(bins),
    y: values,
    ...hovered("", text),
    showlegend: false,
  };
}

function shotText(shot) {
  return shot && shot !== "mixed" ? `${shot}-shot, ` : "";
}

/** Return the corners of a staircase over the bins that are wanted, joined where they touch. */
function stairs(bins, values, wanted = () => true) {
  const x = [];
  const y = [];
  values.forEach((value, bin) => {
    if (wanted(bin)) {
      x.push(bins.low[bin], bins.high[bin]);
      y.push(value, value);
    } else if (wanted(bin + 1) || wanted(bin - 1)) {
      // the riser between a wanted bin and its neighbour, and a break behind it
      const after = wanted(bin - 1) ? [bins.low[bin]] : [];
      const before = wanted(bin + 1) ? [bins.high[bin]] : [];
      x.push(...after, bins.low[bin], ...before);
      y.push(...after.map(() => value), null, ...before.map(() => value));
    } else {
      x.push(bins.low[bin]);
      y.push(null);
    }
  });
  return { x, y };
}

/** Return the traces of one run's values: plain where many images support them, greyed elsewhere. */
function binTraces(view, run, values, digits, unit) {
  const bins = binning();
  const { color, dash, name } = lineOf(view, run);
  const weak = (bin) => bins.images[view.subset][bin] < view.data.weakBelow;
  const shared = { type: "scatter", mode: "lines", legendgroup: `run-${run}` };
  return [
    {
      ...shared,
      ...stairs(bins, values, weak),
      line: { color: faded(color, 0.32), width: 1.5, dash },
      hoverinfo: "skip",
      showlegend: false,
    },
    {
      ...shared,
      name,
      ...stairs(
        bins,
        values.map((value, bin) => (weak(bin) ? null : value)),
      ),
      line: { color, width: 2, dash },
      hoverinfo: "skip",
    },
    {
      ...shared,
      mode: "markers",
      x: centers(bins),
      y: values,
      marker: { color, opacity: 0, size: 9 },
      ...hovered(
        plotText(shortened(view.data.runs[run].name, 32)),
        values.map((value) => `${fixed(value, digits)}${unit ? ` ${plotText(unit)}` : ""}`),
      ),
      showlegend: false,
    },
  ];
}

/** Return the table of a figure in bins: one column per run. */
function binTable(view, columns) {
  const bins = binning();
  return {
    columns: ["from", "to", "shot", "images", ...columns.map(([name]) => name)],
    rows: bins.low.map((low, bin) => [
      low,
      bins.high[bin],
      bins.shots[bin],
      bins.images[view.subset][bin],
      ...columns.map(([, values]) => values[bin]),
    ]),
  };
}

/** Choose the bin that was clicked. */
function chooseOnClick(plot) {
  plot.classList.add("clickable");
  plot.on("plotly_click", (event) => {
    const point = event.points.find((found) => found.pointNumber !== undefined && found.xaxis._id === "x");
    if (!point) {
      return;
    }
    const bins = binning();
    const bin = bins.low.findIndex((low, at) => low <= point.x && point.x < bins.high[at]);
    if (bin >= 0) {
      change({ bin });
    }
  });
}
