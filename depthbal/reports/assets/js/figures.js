// Figures: how they look alike, what a touch tells, when they are drawn and saved.

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

// On a phone plotly's labels would cover what is touched: their text goes below the figure.

/** Return traces and layout of a narrow figure: a line where it is touched, and no label. */
function withoutLabels({ traces, layout: settings }) {
  const unified = settings.hovermode === "x unified";
  return {
    traces: traces.map((trace) =>
      trace.hovertemplate ? { ...trace, hovertemplate: undefined, hoverinfo: "none" } : trace,
    ),
    layout: {
      ...settings,
      hovermode: unified ? "x" : settings.hovermode,
      xaxis: unified ? { ...settings.xaxis, ...SPIKE } : settings.xaxis,
    },
  };
}

const SPIKE = { showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "solid" };

/** Write what the touched points say below a figure. */
function showTouched(figure, points) {
  const inOrder = [...points].sort((a, b) => a.curveNumber - b.curveNumber);
  const rows = inOrder.map(({ data, pointNumber }) => {
    const row = document.createElement("div");
    if (data.name) {
      const line = document.createElement("span");
      line.className = "swatch";
      line.style.color = data.line?.color ?? data.marker?.color;
      row.append(line);
    }
    const text = [pointNumber].flat().reduce((texts, at) => texts[at], data.hovertext);
    row.append(plainText(data.name ? `${data.name}: ${text}` : text));
    return row;
  });
  touchedOf(figure).replaceChildren(...rows);
}

function touchedOf(figure) {
  return figure.element.querySelector(".touched");
}

/** Return the plain text of a plotly label. */
function plainText(label) {
  const text = label.replaceAll("<br>", ", ").replace(/<\/?b>/g, "");
  return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}

// Figures by name: drawn when they come into view, again when what they show changes.

const figures = new Map();
const PLOT_SETTINGS = { displayModeBar: false, responsive: true, showTips: false };
const EXPORT_SIZE = { width: 1000, scale: 3 };

/**
 * Register a figure.
 *
 * name: that of its element, data-figure; build(view) returns {traces, layout, table}, where table
 * is {columns, rows} for the csv file; uses: names in the state whose change it shows; ready(plot):
 * called once, after the first drawing. A build that has nothing to draw returns {instead}, a sentence.
 */
function defineFigure(name, uses, build, ready = () => {}) {
  figures.set(name, { name, uses, build, ready, element: null, visible: false, drawn: false });
}

function viewOf(figure, settings = {}) {
  const plot = figure.element.querySelector(".plot");
  const width = settings.width ?? plot.clientWidth;
  return {
    data: state.data,
    subset: figure.uses.includes("subset") ? state.subset : state.data.defaults.subset,
    palette: paletteOf(settings.theme ?? theme()),
    narrow: width < 560,
    width,
    ...settings,
  };
}

function draw(figure) {
  const plot = figure.element.querySelector(".plot");
  const view = viewOf(figure);
  const { instead, ...built } = { traces: [], layout: {}, ...figure.build(view) };
  figure.element.classList.toggle("empty", Boolean(instead));
  figure.element.querySelector(".instead").textContent = instead ?? "";
  const { traces, layout: settings } = view.narrow ? withoutLabels(built) : built;
  const height = plot.clientHeight;
  plot.setAttribute("aria-label", figure.element.querySelector("figcaption p").textContent);
  Plotly.react(plot, traces, { ...settings, height }, PLOT_SETTINGS);
  if (!figure.drawn) {
    figure.drawn = true;
    figure.ready(plot);
    for (const event of ["plotly_hover", "plotly_click"]) {
      plot.on(event, ({ points }) => {
        if (viewOf(figure).narrow) {
          showTouched(figure, points);
        }
      });
    }
  }
}

function redrawAll() {
  for (const figure of figures.values()) {
    if (figure.drawn) {
      touchedOf(figure).replaceChildren();
      draw(figure);
    }
  }
}

function redrawChanged(changed) {
  for (const figure of figures.values()) {
    const used = changed.filter((name) => figure.uses.includes(name));
    if (figure.drawn && used.length > 0) {
      if (used.some((name) => name !== "bin")) {
        touchedOf(figure).replaceChildren();
      }
      draw(figure);
    }
  }
}

/** Draw every figure that was not yet in view. */
function drawRest() {
  for (const figure of figures.values()) {
    if (figure.element && !figure.drawn) {
      draw(figure);
    }
  }
}

/** Number the figures of the page, and draw each as soon as it comes near the window. */
function startFigures() {
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const figure = figures.get(entry.target.dataset.figure);
        if (entry.isIntersecting && !figure.drawn) {
          draw(figure);
        }
      }
    },
    { rootMargin: "600px" },
  );
  let number = 0;
  for (const element of document.querySelectorAll("[data-figure]")) {
    const figure = figures.get(element.dataset.figure);
    number += 1;
    figure.element = element;
    element.querySelector(".figure-number").textContent = `Figure ${number}.`;
    addDownloads(figure);
    observer.observe(element);
  }
  addEventListener("beforeprint", () => printWith("light"));
  addEventListener("afterprint", () => printWith(null));
}

let themeOnScreen = null;

/** Draw and unfold everything for paper, or (null) make it ready for the screen again. */
function printWith(name) {
  for (const folded of document.querySelectorAll(name ? "details:not([open])" : "[data-unfolded]")) {
    folded.open = Boolean(name);
    folded.toggleAttribute("data-unfolded", Boolean(name));
  }
  if (name) {
    themeOnScreen = theme();
    document.documentElement.dataset.theme = name;
    drawRest();
  } else {
    document.documentElement.dataset.theme = themeOnScreen;
  }
  redrawAll();
}

function addDownloads(figure) {
  const place = figure.element.querySelector(".downloads");
  const title = figure.element.querySelector(".figure-number").textContent.replace(".", "");
  for (const format of ["svg", "png", "csv"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = format;
    button.dataset.format = format;
    button.setAttribute("aria-label", `download ${title} as ${format}`);
    button.addEventListener("click", () => downloadFigure(figure, format));
    place.append(button);
  }
}

/** Save a figure in the light theme with its legend, or what it shows as a table. */
async function downloadFigure(figure, format) {
  const view = viewOf(figure, { theme: "light", legend: true, width: EXPORT_SIZE.width });
  const built = figure.build(view);
  if (format === "csv") {
    saveText(`${figure.name}.csv`, csvText(built.table.columns, built.table.rows));
    return;
  }
  const height = Math.round(figure.element.querySelector(".plot").clientHeight * 1.15);
  const settings = {
    ...built.layout,
    ...EXPORT_SIZE,
    height,
    margin: { ...built.layout.margin, t: 48 },
    paper_bgcolor: "#ffffff",
  };
  const holder = document.createElement("div");
  const plot = await Plotly.newPlot(holder, built.traces, settings, { staticPlot: true });
  await Plotly.downloadImage(plot, { format, filename: figure.name, height, ...EXPORT_SIZE });
  Plotly.purge(holder);
}
