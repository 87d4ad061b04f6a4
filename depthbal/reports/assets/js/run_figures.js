// Figures of runs: what their training logged, and what the rare cost the common.

// Learning curves, and sigma over training and over the label.

defineFigure("curves", ["shown"], (view) => {
  const panels = view.data.curves.slice(0, view.narrow ? 2 : 4);
  const columns = view.narrow ? 1 : Math.min(2, panels.length);
  const rows = Math.ceil(panels.length / columns);
  const traces = [];
  const settings = {};
  const annotations = [];
  const table = [];
  panels.forEach((panel, at) => {
    const id = at === 0 ? "" : at + 1;
    const column = at % columns;
    const row = Math.floor(at / columns);
    const left = column / columns + (column ? 0.04 : 0);
    const right = (column + 1) / columns - (column + 1 < columns ? 0.04 : 0);
    const top = 1 - row / rows - (row ? 0.09 : 0);
    const bottom = 1 - (row + 1) / rows + (row + 1 < rows ? 0.09 : 0);
    settings[`xaxis${id}`] = axis(view.palette, {
      domain: [left, right],
      anchor: `y${id}`,
      title: row + 1 === rows ? "step" : "",
      showgrid: false,
      ticks: "outside",
      rangemode: "tozero",
    });
    settings[`yaxis${id}`] = axis(view.palette, {
      domain: [bottom, Math.max(bottom + 0.05, top - 0.07)],
      anchor: `x${id}`,
      fixedrange: true,
      nticks: 5,
    });
    annotations.push({
      text: plotText(panel.name),
      xref: "paper",
      yref: "paper",
      x: left,
      y: top,
      xanchor: "left",
      yanchor: "top",
      showarrow: false,
      font: { size: 12.5, color: view.palette.ink },
    });
    panel.lines.forEach((line, run) => {
      if (!line || !state.shown[run]) {
        return;
      }
      const { color, dash, name } = lineOf(view, run);
      traces.push({
        type: "scatter",
        mode: line.x.length < 30 ? "lines+markers" : "lines",
        marker: { size: 5 },
        x: line.x,
        y: line.y,
        xaxis: `x${id}`,
        yaxis: `y${id}`,
        line: { color, dash, width: 1.8 },
        showlegend: at === 0,
        ...hovered(
          name,
          line.x.map((x, k) => `step ${x}: ${line.y[k].toPrecision(4)}`),
        ),
      });
      line.x.forEach((x, k) => table.push([view.data.runs[run].name, panel.name, x, line.y[k]]));
    });
  });
  return {
    traces,
    layout: layout(view, { hovermode: "closest", annotations, ...settings }),
    table: { columns: ["run", "quantity", "step", "value"], rows: table },
  };
});

function sigmaFigure(view, lines, xTitle, xText) {
  const { data, palette } = view;
  const shown = lines.filter((line) => state.shown[line.run]);
  return {
    traces: shown.map((line, at) => {
      const { color, dash, name } = lineOf(view, line.run);
      const part = line.name && line.name !== "sigma" ? `, ${line.name}` : "";
      const parts = shown.filter((other) => other.run === line.run);
      const dashes = ["solid", "dash", "dot"];
      return {
        type: "scatter",
        mode: "lines",
        x: line.x,
        y: line.y,
        line: {
          color,
          width: 2,
          dash: parts.length > 1 ? dashes[parts.indexOf(shown[at]) % 3] : dash,
        },
        ...hovered(
          name + part,
          line.x.map((x, k) => `${plotText(xText)} ${edge(x)}: ${fixed(line.y[k], 3)}`),
        ),
      };
    }),
    layout: layout(view, {
      hovermode: "closest",
      xaxis: axis(palette, { title: xTitle, showgrid: false, ticks: "outside" }),
      yaxis: axis(palette, {
        title: `σ${data.sigmaUnit ? ` (${data.sigmaUnit})` : ""}`,
        rangemode: "tozero",
        fixedrange: true,
      }),
    }),
    table: {
      columns: ["run", "quantity", xText, "sigma"],
      rows: shown.flatMap((line) =>
        line.x.map((x, at) => [data.runs[line.run].name, line.name ?? "sigma", x, line.y[at]]),
      ),
    },
  };
}

defineFigure("sigma-training", ["shown"], (view) =>
  sigmaFigure(view, view.data.sigmaTraining, "step", "step"),
);

defineFigure("sigma-label", ["shown"], (view) =>
  sigmaFigure(view, view.data.sigmaLabel, `predicted ${view.data.label.axis}`, view.data.label.label),
);

// What a gain where labels are few costs where they are many.

defineFigure("tradeoff", ["shown"], (view) => {
  const { data, palette } = view;
  const points = data.tradeoff.filter((point) => state.shown[point.run]);
  const info = data.metrics[0];
  const families = new Map();
  for (const point of points) {
    families.set(point.family, [...(families.get(point.family) ?? []), point]);
  }
  const traces = [];
  for (const members of families.values()) {
    const sorted = [...members].sort((a, b) => (a.sigma ?? 0) - (b.sigma ?? 0));
    if (new Set(sorted.map((point) => point.sigma)).size > 1) {
      traces.push({
        type: "scatter",
        mode: "lines",
        x: sorted.map((point) => point.many),
        y: sorted.map((point) => point.few),
        line: { color: faded(lineOf(view, sorted[0].run).color, 0.5), width: 1.5 },
        hoverinfo: "skip",
        showlegend: false,
      });
    }
  }
  const names = points.map((point) => shortened(data.runs[point.run].name, 36));
  const places = points.length ? labelPlaces(points, names, view.width) : [];
  points.forEach((point, at) => {
    const { color, name } = lineOf(view, point.run);
    const sigma = point.sigma === null ? "" : `, σ ${edge(point.sigma)}`;
    traces.push({
      type: "scatter",
      mode: view.narrow ? "markers" : "markers+text",
      x: [point.many],
      y: [point.few],
      text: [plotText(names[at])],
      textposition: places[at],
      textfont: { color: palette.ink, size: 12 },
      cliponaxis: false,
      marker: {
        color,
        size: 11,
        symbol: data.runs[point.run].dash === "solid" ? "circle" : "circle-open",
        line: { color, width: 2 },
      },
      ...hovered(name, [
        `many ${fixed(point.many, info.digits)}, few ${fixed(point.few, info.digits)}${sigma}`,
      ]),
      showlegend: view.narrow || (view.legend ?? false),
    });
  });
  const unit = info.unit ? ` (${info.unit})` : "";
  return {
    traces,
    layout: layout(view, {
      hovermode: "closest",
      showlegend: view.narrow,
      legend: { orientation: "h", y: -0.22, x: 0, font: { size: 11.5 } },
      xaxis: axis(palette, { title: `many-shot ${info.name}${unit}`, ...padded(points, "many", ROOM.many) }),
      yaxis: axis(palette, { title: `few-shot ${info.name}${unit}`, ...padded(points, "few", ROOM.few) }),
    }),
    table: {
      columns: ["run", "family", "sigma", "many", "few"],
      rows: points.map((point) => [
        data.runs[point.run].name,
        point.family,
        point.sigma,
        point.many,
        point.few,
      ]),
    },
  };
});

/** Return for each label the first place beside its point that no other label or point covers. */
function labelPlaces(points, names, width) {
  const [low, high] = ["many", "few"].map((key) => padded(points, key, ROOM[key]).range).reduce(
    (ends, range) => [
      [...ends[0], range[0]],
      [...ends[1], range[1]],
    ],
    [[], []],
  );
  const at = (point) => ({
    x: ((point.many - low[0]) / (high[0] - low[0])) * (width - 80),
    y: ((high[1] - point.few) / (high[1] - low[1])) * 350,
  });
  const boxes = points.map((point) => ({ ...around(at(point), 0, 0, 16, 16), point }));
  return points.map((point, number) => {
    const size = [7 * names[number].length + 8, 15];
    const candidates = PLACES.map(([place, x, y]) => {
      const { x: left, y: top } = at(point);
      const shift = [x * (size[0] / 2 + 9), y * 15];
      return { place, box: around({ x: left, y: top }, ...shift, ...size) };
    });
    const free = candidates.find(
      ({ box }) =>
        box.left > 0 &&
        box.right < width - 60 &&
        boxes.every((other) => other.point === point || !overlap(box, other)),
    );
    const chosen = free ?? candidates[0];
    boxes.push(chosen.box);
    return chosen.place;
  });
}

const ROOM = { many: 0.3, few: 0.15 };
const PLACES = [
  ["middle right", 1, 0],
  ["middle left", -1, 0],
  ["top center", 0, -1],
  ["bottom center", 0, 1],
  ["top right", 1, -1],
  ["bottom right", 1, 1],
  ["top left", -1, -1],
  ["bottom left", -1, 1],
];

function around({ x, y }, right, down, width, height) {
  return {
    left: x + right - width / 2,
    right: x + right + width / 2,
    top: y + down - height / 2,
    bottom: y + down + height / 2,
  };
}

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/** Return a range with room around the points. */
function padded(points, key, share) {
  const values = points.map((point) => point[key]);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * share;
  return points.length ? { range: [low - room, high + room] } : {};
}
