// What all figures have in common.

/** Return an axis in the page's style; settings win. */
function axis(palette, settings = {}) {
  return {
    gridcolor: palette.hairline,
    linecolor: palette.rule,
    tickcolor: palette.rule,
    tickfont: { color: palette.muted, size: 12 },
    zeroline: false,
    showline: false,
    automargin: true,
    fixedrange: settings.fixedrange ?? false,
    ...settings,
    title: { text: settings.title ?? "", font: { color: palette.muted, size: 12.5 }, standoff: 8 },
  };
}

/** Return the axis of the label. */
function labelAxis(view, settings = {}) {
  const { label } = view.data;
  const bins = binning();
  const log = settings.log ?? bins.log;
  const ends = [bins.low[0], bins.high[bins.high.length - 1]];
  const logTicks = log
    ? { tickvals: [0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 20, 30, 50, 80, 100, 200, 500, 1000] }
    : {};
  return axis(view.palette, {
    type: log ? "log" : "linear",
    range: log ? ends.map(Math.log10) : ends,
    title: label.axis,
    showgrid: false,
    ticks: "outside",
    ticklen: 4,
    unifiedhovertitle: { text: label.label },
    ...logTicks,
    ...settings.axis,
  });
}

/** Return a layout in the page's style; settings win. */
function layout(view, settings = {}) {
  const { palette, narrow } = view;
  return {
    font: { family: palette.font, size: 12.5, color: palette.ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: narrow ? 44 : 56, r: narrow ? 10 : 16, t: 12, b: 44 },
    showlegend: view.legend ?? false,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 12 } },
    hoverlabel: {
      bgcolor: palette.paper,
      bordercolor: palette.rule,
      font: { family: palette.font, size: 12.5, color: palette.ink },
      align: "left",
      namelength: -1,
    },
    dragmode: false,
    ...settings,
  };
}

/** Return a trace's name and what it says about each of its points, in plotly's labels. */
function hovered(name, texts) {
  return { name, hovertext: texts, hovertemplate: `%{hovertext}<extra>${name}</extra>` };
}

/** Return colour, dashes and label of a run. */
function lineOf(view, run) {
  const found = view.data.runs[run];
  return {
    color: view.palette.runs[found.colour],
    dash: found.dash,
    width: 2,
    name: plotText(shortened(found.name, view.narrow ? 28 : 48)),
  };
}

/** Return a colour with an opacity. */
function faded(colour, opacity) {
  const value = parseInt(colour.slice(1), 16);
  return `rgba(${value >> 16}, ${(value >> 8) & 255}, ${value & 255}, ${opacity})`;
}
