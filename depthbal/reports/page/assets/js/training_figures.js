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
