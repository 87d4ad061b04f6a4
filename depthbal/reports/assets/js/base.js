// What everything stands on: packed numbers, text, what is chosen, light and dark.

// What the page carries compressed: its numbers and plotly.

/** Return the text of a packed element: base64 of gzip. */
async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (letter) =>
    letter.charCodeAt(0),
  );
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** Define the global Plotly. */
async function loadPlotly() {
  const element = document.createElement("script");
  element.textContent = await unpack("packed-plotly");
  document.head.append(element);
  element.remove();
  document.getElementById("packed-plotly").remove();
}

// Numbers and names as text.

const MINUS = "\u2212";

/** Return a number with a fixed number of decimals and a true minus sign. */
function fixed(value, digits, signed = false) {
  if (value === null || value === undefined) {
    return "–";
  }
  const text = value.toFixed(digits);
  if (Number(text) === 0) {
    return text.replace("-", "");
  }
  return (signed && value > 0 ? "+" : "") + text.replace("-", MINUS);
}

/** Return a count with thin spaces between thousands. */
function counted(value) {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** Return a share as "68.3 %". */
function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** Return an edge of a bin without the noise of binary fractions. */
function edge(value) {
  return Number(value.toPrecision(6)).toString().replace("-", MINUS);
}

/** Return "5.0–5.1 m": neighbouring edges with equally many decimals. */
function interval(low, high, unit) {
  const decimals = (value) => (edge(value).split(".")[1] || "").length;
  const digits = Math.min(3, Math.max(decimals(low), decimals(high)));
  return `${low.toFixed(digits)}–${high.toFixed(digits)}${unit ? ` ${unit}` : ""}`;
}

/** Return the name of one unit: "year" of "years", but "s" of "s". */
function one(unit) {
  return unit.length > 2 ? unit.replace(/s$/, "") : unit;
}

/** Return user text for plotly's labels, which read some html. */
function plotText(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Return a name with its unit: "RMSE (m)". */
function titled(info) {
  return info.unit ? `${info.name} (${info.unit})` : info.name;
}

/** Return a text cut to a length, its end kept: names of runs differ there as often as in front. */
function shortened(text, length) {
  if (text.length <= length) {
    return text;
  }
  const front = Math.ceil((length - 1) * 0.6);
  return `${text.slice(0, front)}…${text.slice(text.length - (length - 1 - front))}`;
}

// What the reader has chosen, and who wants to know when that changes.

const state = {
  data: null,
  metric: null,
  binning: 0,
  subset: null,
  readout: "main",
  bin: 0,
  shown: [],
  scale: "log",
  jointRun: 0,
};

const listeners = [];

/** Call listener(changed names) after every change. */
function onChange(listener) {
  listeners.push(listener);
}

function change(values) {
  const changed = Object.keys(values).filter((name) => state[name] !== values[name]);
  if (changed.length === 0) {
    return;
  }
  Object.assign(state, values);
  for (const listener of listeners) {
    listener(changed);
  }
}

function metricInfo() {
  return state.data.metrics.find((info) => info.key === state.metric);
}

function binning() {
  return state.data.binnings[state.binning];
}

/** Return the read-out that is shown of a run: its own main one, or the chosen one. */
function readoutOf(run) {
  return state.readout === "main" ? state.data.runs[run].main : state.readout;
}

/** Return a run's numbers per bin, as they are chosen, or null where it has none. */
function binNumbers(run) {
  const tables = state.data.bins[`${state.binning}/${state.subset}/${readoutOf(run)}`];
  return tables ? tables[run] : null;
}

/** Return the places of the runs that are shown. */
function shownRuns() {
  return state.data.runs.map((_, run) => run).filter((run) => state.shown[run]);
}

/** Return the number of images that support a bin, with the subset that they are counted in. */
function supportText(subset, bin) {
  const images = binning().images[subset][bin];
  const { subsets, weakBelow } = state.data;
  const where = subsets.length > 1 ? ` (${subsets.find(({ key }) => key === subset).name})` : "";
  return `${images} images${where}${images < weakBelow ? `, fewer than ${weakBelow}` : ""}`;
}

/** Return the middle of every bin: on a logarithmic axis the geometric one. */
function centers(bins) {
  return bins.low.map((low, bin) =>
    bins.log ? Math.sqrt(low * bins.high[bin]) : (low + bins.high[bin]) / 2,
  );
}

// Light and dark.

function theme() {
  return document.documentElement.dataset.theme;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  const button = document.getElementById("theme-switch");
  button.textContent = name === "dark" ? "Light" : "Dark";
  button.setAttribute("aria-label", `switch to the ${name === "dark" ? "light" : "dark"} theme`);
  button.setAttribute("aria-pressed", String(name === "dark"));
}

/** Return the colours of a theme as the style sheet has them. */
function paletteOf(name) {
  const root = document.documentElement;
  const before = root.dataset.theme;
  root.dataset.theme = name;
  const style = getComputedStyle(root);
  const read = (variable) => style.getPropertyValue(`--${variable}`).trim();
  const palette = { runs: [], font: read("sans") };
  for (const key of ["paper", "ink", "muted", "faint", "hairline", "rule", "veil", "accent"]) {
    palette[key] = read(key);
  }
  palette.shots = { many: read("many"), medium: read("medium"), few: read("few") };
  palette.heat = [read("heat-low"), read("heat-middle"), read("heat-high")];
  for (let run = 0; read(`run-${run}`); run += 1) {
    palette.runs.push(read(`run-${run}`));
  }
  root.dataset.theme = before;
  return palette;
}

/** Let the button switch, remember the choice, and follow the system until there is one. */
function startTheme(redraw) {
  setTheme(theme());
  document.getElementById("theme-switch").addEventListener("click", () => {
    const name = theme() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("depthbal-theme", name);
    } catch {
      // without storage the choice holds until the page is closed
    }
    setTheme(name);
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => {
    setTheme(event.matches ? "dark" : "light");
    redraw();
  });
}
