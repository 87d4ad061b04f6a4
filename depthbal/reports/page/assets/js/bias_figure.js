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
