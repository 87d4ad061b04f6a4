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
