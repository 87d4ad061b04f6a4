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
