// Figures of predictions: their distributions, and the coverage of intervals.

// Where predictions and truths lie, apart and together.

function jointOf(run) {
  const tables = state.data.joint[readoutOf(run)];
  return tables ? tables[run] : null;
}

/** Return a histogram's values as the corners of a staircase. */
function staircase(edges, values) {
  const x = [];
  const y = [];
  values.forEach((value, bin) => {
    x.push(edges[bin], edges[bin + 1]);
    y.push(value || null, value || null);
  });
  return { x, y };
}

defineFigure("distribution", ["readout", "shown", "scale"], (view) => {
  const runs = shownRuns().filter((run) => jointOf(run));
  const first = view.data.runs.findIndex((_, run) => jointOf(run));
  const { palette } = view;
  const traces = [];
  const columns = [];
  if (first >= 0) {
    const { edges, truth } = jointOf(first);
    traces.push({
      type: "scatter",
      mode: "lines",
      name: "truth",
      ...staircase(edges, truth),
      fill: "tozeroy",
      fillcolor: faded(palette.faint, 0.3),
      line: { width: 0 },
      hoverinfo: "skip",
    });
    columns.push(["truth", edges, truth]);
  }
  for (const run of runs) {
    const { edges, predicted } = jointOf(run);
    const { color, dash, name } = lineOf(view, run);
    const corners = staircase(edges, predicted);
    traces.push({
      type: "scatter",
      mode: "lines",
      ...corners,
      line: { color, dash, width: 2 },
      ...hovered(
        name,
        corners.x.map((x, at) => `${edge(x)}: ${(corners.y[at] ?? 0).toPrecision(3)} %`),
      ),
    });
    columns.push([view.data.runs[run].name, edges, predicted]);
  }
  return {
    traces,
    layout: layout(view, {
      hovermode: "closest",
      xaxis: axis(palette, { title: view.data.label.axis, showgrid: false, ticks: "outside" }),
      yaxis: axis(palette, {
        type: state.scale,
        title: `density (% per ${one(view.data.label.unit) || "unit"})`,
        rangemode: "tozero",
        fixedrange: true,
        ...(state.scale === "log" ? { dtick: 1 } : {}),
      }),
      annotations: outside(view, runs),
    }),
    table: {
      columns: ["from", "to", ...columns.map(([name]) => name)],
      rows: columns.length
        ? columns[0][2].map((_, bin) => [
            columns[0][1][bin],
            columns[0][1][bin + 1],
            ...columns.map(([, , values]) => values[bin]),
          ])
        : [],
    },
  };
});

/** Say how many predictions leave the axis. */
function outside(view, runs) {
  const lines = runs
    .filter((run) => jointOf(run).below + jointOf(run).beyond > 0.005)
    .map((run) => {
      const { below, beyond } = jointOf(run);
      const name = plotText(shortened(view.data.runs[run].name, 24));
      return `${name}: ${(below + beyond).toPrecision(2)} % outside`;
    });
  if (lines.length === 0) {
    return [];
  }
  return [
    {
      text: lines.join("<br>"),
      xref: "paper",
      yref: "paper",
      x: 1,
      y: 1,
      xanchor: "right",
      yanchor: "top",
      align: "right",
      showarrow: false,
      font: { size: 11, color: view.palette.muted },
    },
  ];
}

defineFigure("joint", ["readout", "jointRun"], (view) => {
  const table = jointOf(state.jointRun);
  const { palette, data } = view;
  if (!table) {
    return { traces: [], layout: layout(view), table: { columns: [], rows: [] } };
  }
  const { edges } = table;
  const bins = edges.length - 1;
  const z = Array.from({ length: bins }, () => new Array(bins).fill(null));
  const text = Array.from({ length: bins }, () => new Array(bins).fill(""));
  const unit = data.label.unit;
  table.row.forEach((row, at) => {
    const column = table.column[at];
    z[column][row] = table.share[at];
    text[column][row] =
      `truth ${interval(edges[row], edges[row + 1], unit)}<br>` +
      `predicted ${interval(edges[column], edges[column + 1], unit)}<br>` +
      `${(100 * table.share[at]).toPrecision(3)} % of ${counted(table.rows[row])} ${data.label.items}`;
  });
  const range = [data.label.low, data.label.high];
  const [low, middle, high] = palette.heat;
  return {
    traces: [
      {
        type: "heatmap",
        x: edges,
        y: edges,
        z,
        ...hovered("", text),
        zmin: 0,
        zmax: brightest(table.share),
        colorscale: [
          [0, low],
          [0.45, middle],
          [1, high],
        ],
        colorbar: {
          thickness: 8,
          outlinewidth: 0,
          tickformat: ".0%",
          nticks: 5,
          tickfont: { color: palette.muted, size: 11 },
          title: { text: "share", font: { color: palette.muted, size: 11 } },
        },
      },
      {
        type: "scatter",
        mode: "lines",
        x: range,
        y: range,
        line: { color: palette.muted, width: 1, dash: "dot" },
        hoverinfo: "skip",
        showlegend: false,
      },
    ],
    layout: layout(view, {
      hovermode: "closest",
      xaxis: axis(palette, { title: `true ${data.label.axis}`, range, showgrid: false, constrain: "domain" }),
      yaxis: axis(palette, {
        title: `predicted ${data.label.axis}`,
        range,
        showgrid: false,
        scaleanchor: "x",
        constrain: "domain",
      }),
    }),
    table: {
      columns: ["truth from", "truth to", "predicted from", "predicted to", "share of truth bin"],
      rows: table.row.map((row, at) => {
        const column = table.column[at];
        return [edges[row], edges[row + 1], edges[column], edges[column + 1], table.share[at]];
      }),
    },
  };
});

/** Return the end of the colour scale: a few full columns of rare bins must not set it. */
function brightest(shares) {
  const sorted = [...shares].sort((a, b) => a - b);
  return sorted[Math.floor(0.985 * (sorted.length - 1))];
}

// How often the truth lies in the interval that sigma promises.

const SHOTS = ["overall", "many", "medium", "few"];

function coverageAxis(view) {
  return axis(view.palette, {
    title: view.narrow ? "coverage" : "truths inside the interval",
    range: [0, 1.02],
    tickformat: ".0%",
    fixedrange: true,
  });
}

defineFigure("calibration", ["shown"], (view) => {
  const { calibration, runs } = view.data;
  const shown = shownRuns().filter((run) => calibration.groups[run]);
  const groups = SHOTS.filter((group) => shown.some((run) => calibration.groups[run][group]));
  const traces = shown.map((run, at) => {
    const { color, name } = lineOf(view, run);
    const found = calibration.groups[run];
    const shift = (at - (shown.length - 1) / 2) * Math.min(0.12, 0.6 / shown.length);
    const present = groups.filter((group) => found[group]);
    return {
      type: "scatter",
      mode: "markers",
      x: present.map((group) => groups.indexOf(group) + shift),
      y: present.map((group) => found[group].coverage),
      marker: { color, size: 10, symbol: runs[run].dash === "solid" ? "circle" : "circle-open" },
      ...hovered(
        name,
        present.map((group) => `${percent(found[group].coverage)} of ${counted(found[group].count)}`),
      ),
    };
  });
  return {
    traces,
    layout: layout(view, {
      hovermode: "closest",
      xaxis: axis(view.palette, {
        tickvals: groups.map((_, at) => at),
        ticktext: groups,
        range: [-0.5, groups.length - 0.5],
        showgrid: false,
        fixedrange: true,
      }),
      yaxis: coverageAxis(view),
      shapes: [horizontal(view, calibration.level)],
    }),
    table: {
      columns: ["run", "shot", "coverage", "count", "level"],
      rows: shown.flatMap((run) =>
        groups
          .filter((group) => calibration.groups[run][group])
          .map((group) => {
            const { coverage, count } = calibration.groups[run][group];
            return [runs[run].name, group, coverage, count, calibration.level];
          }),
      ),
    },
  };
});

defineFigure("calibration-bins", ["binning", "shown", "bin"], (view) => {
  const { calibration } = view.data;
  const values = calibration.bins[state.binning];
  const shown = shownRuns().filter((run) => values[run]);
  return {
    traces: [
      headTrace(view, binning().low.map(() => 0)),
      ...shown.flatMap((run) => binTraces(view, run, values[run], 3, "")),
    ],
    layout: layout(view, {
      hovermode: "x unified",
      xaxis: labelAxis(view),
      yaxis: coverageAxis(view),
      shapes: [...binShapes(view, { panel: [0, 1] }), horizontal(view, calibration.level)],
    }),
    table: binTable(view, shown.map((run) => [view.data.runs[run].name, values[run]])),
  };
});
