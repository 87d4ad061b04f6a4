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
  const places = labelPlaces(points);
  points.forEach((point, at) => {
    const { color, name } = lineOf(view, point.run);
    const sigma = point.sigma === null ? "" : `, σ ${edge(point.sigma)}`;
    traces.push({
      type: "scatter",
      mode: view.narrow ? "markers" : "markers+text",
      name,
      x: [point.many],
      y: [point.few],
      text: [plotText(shortened(data.runs[point.run].name, 36))],
      textposition: places[at],
      textfont: { color: palette.ink, size: 12 },
      cliponaxis: false,
      marker: {
        color,
        size: 11,
        symbol: data.runs[point.run].dash === "solid" ? "circle" : "circle-open",
        line: { color, width: 2 },
      },
      hovertemplate: `many %{x:.${info.digits}f}, few %{y:.${info.digits}f}${sigma}<extra>${name}</extra>`,
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
      xaxis: axis(palette, { title: `many-shot ${info.name}${unit}`, ...padded(points, "many", 0.3) }),
      yaxis: axis(palette, { title: `few-shot ${info.name}${unit}`, ...padded(points, "few", 0.15) }),
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

/** Put each label on the side where the others are not. */
function labelPlaces(points) {
  const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
  const many = middle(points.map((point) => point.many));
  return points.map((point) => (point.many <= many ? "middle right" : "middle left"));
}

/** Return a range with room around the points. */
function padded(points, key, share) {
  const values = points.map((point) => point[key]);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * share;
  return points.length ? { range: [low - room, high + room] } : {};
}
