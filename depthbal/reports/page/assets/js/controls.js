// The selectors.

/** Fill a selector with [value, text], hide it where there is nothing to choose. */
function fillSelect(id, options, value, choose) {
  const select = document.getElementById(id);
  if (!select) {
    return;
  }
  for (const [key, text] of options) {
    const option = document.createElement("option");
    option.value = key;
    option.textContent = text;
    select.append(option);
  }
  select.value = value;
  select.addEventListener("change", () => choose(select.value));
  if (options.length < 2) {
    select.closest("label").hidden = true;
  }
}

function startControls() {
  const { data } = state;
  const { metrics, binnings, subsets, readouts, runs } = data;
  fillSelect("select-metric", metrics.map((info) => [info.key, titled(info)]), state.metric, (metric) =>
    change({ metric }),
  );
  fillSelect("select-binning", binnings.map((bins, at) => [String(at), bins.name]), "0", (value) => {
    const middle = centers(binning())[state.bin];
    state.binning = Number(value);
    state.bin = binAfterRebinning(middle);
    for (const listener of listeners) {
      listener(["binning", "bin"]);
    }
  });
  fillSelect("select-subset", subsets.map(({ key, name }) => [key, name]), state.subset, (subset) =>
    change({ subset }),
  );
  const own = new Set(runs.map((run) => run.main)).size > 1 ? "as reported" : null;
  const main = readouts.find(({ key }) => key === runs[0].main);
  fillSelect(
    "select-readout",
    [
      ["main", own ?? `${main?.name ?? ""}, reported`],
      ...readouts.filter(({ key }) => own || key !== runs[0].main).map(({ key, name }) => [key, name]),
    ],
    "main",
    (readout) => change({ readout }),
  );
  fillSelect(
    "select-joint-run",
    runs.map((run, at) => [String(at), run.name]),
    String(state.jointRun),
    (value) => change({ jointRun: Number(value) }),
  );
  const scale = document.getElementById("select-scale");
  scale?.addEventListener("change", () => change({ scale: scale.value }));
  startRuns();
}

/** One checkbox per run: the legend of all figures. */
function startRuns() {
  const place = document.getElementById("select-runs");
  state.data.runs.forEach((run, at) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = state.shown[at];
    box.dataset.run = String(at);
    box.addEventListener("change", () =>
      change({ shown: state.shown.map((shown, other) => (other === at ? box.checked : shown)) }),
    );
    label.append(box, swatch(run), run.name);
    place.append(label);
  });
  if (state.data.runs.length === 1) {
    place.hidden = true;
  }
}

/** Let the answer's selectors show one table of those that are there. */
function startAnswer() {
  const tables = [...document.querySelectorAll(".answer-table")];
  const names = (key, texts) =>
    [...new Set(tables.map((table) => table.dataset[key]))].map((value) => [value, texts(value)]);
  const wanted = { metric: tables[0].dataset.metric, statistic: tables[0].dataset.statistic };
  const show = (values) => {
    Object.assign(wanted, values);
    for (const table of tables) {
      table.hidden =
        table.dataset.metric !== wanted.metric || table.dataset.statistic !== wanted.statistic;
    }
  };
  fillSelect(
    "answer-metric",
    names("metric", (key) => titled(state.data.metrics.find((info) => info.key === key))),
    wanted.metric,
    (metric) => show({ metric }),
  );
  fillSelect(
    "answer-statistic",
    names("statistic", (key) => state.data.statistics[key]),
    wanted.statistic,
    (statistic) => show({ statistic }),
  );
}

/** List the sections. */
function startContents() {
  const place = document.getElementById("contents");
  for (const section of document.querySelectorAll("main section[aria-labelledby]")) {
    const title = document.getElementById(section.getAttribute("aria-labelledby"));
    const link = document.createElement("a");
    link.href = `#${section.id}`;
    link.textContent = title.textContent;
    const item = document.createElement("li");
    item.append(link);
    place.append(item);
  }
}
