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
