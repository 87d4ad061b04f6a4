// Panel, selectors and tables, and the start of it all.

// The numbers of the chosen bin.

function showBin() {
  const { data } = state;
  const bins = binning();
  const bin = Math.min(state.bin, bins.low.length - 1);
  const panel = document.getElementById("bin-panel");
  panel.dataset.bin = String(bin);
  panel.dataset.from = String(bins.low[bin]);
  panel.dataset.to = String(bins.high[bin]);
  document.getElementById("bin-title").textContent = interval(
    bins.low[bin],
    bins.high[bin],
    data.label.unit,
  );
  document.getElementById("bin-facts").textContent = binFacts(bins, bin);
  document.getElementById("bin-previous").disabled = bin === 0;
  document.getElementById("bin-next").disabled = bin === bins.low.length - 1;
  fillBinTable(bin);
}

function binFacts(bins, bin) {
  const { data } = state;
  const facts = [];
  if (bins.shots[bin]) {
    facts.push(bins.shots[bin] === "mixed" ? "several shots" : `${bins.shots[bin]}-shot`);
  }
  if (bins.training.length) {
    facts.push(`${bins.training[bin].toPrecision(2)} % of the training ${data.label.items}`);
  }
  facts.push(supportText(state.subset, bin));
  return facts.join(" · ");
}

function fillBinTable(bin) {
  const { data } = state;
  const table = document.getElementById("bin-table");
  table.dataset.file = `bin-${document.getElementById("bin-panel").dataset.from}`;
  const runs = data.runs.map((_, run) => run).filter((run) => binNumbers(run));
  const infos = data.metrics.filter((info) => runs.some((run) => binNumbers(run)[info.key]));
  const head = document.createElement("tr");
  head.append(headCell("run"));
  for (const info of infos) {
    const cell = headCell(titled(info));
    cell.title = info.meaning;
    cell.classList.toggle("chosen", info.key === state.metric);
    head.append(cell);
  }
  head.append(headCell(data.label.items));
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...runs.map((run) => binRow(run, infos, bin)));
}

function headCell(text) {
  const cell = document.createElement("th");
  cell.scope = "col";
  cell.textContent = text;
  return cell;
}

function binRow(run, infos, bin) {
  const found = state.data.runs[run];
  const numbers = binNumbers(run);
  const row = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.dataset.csv = found.name;
  name.append(swatch(found), found.name);
  row.append(name);
  row.dataset.run = String(run);
  for (const info of infos) {
    const value = numbers[info.key]?.[bin] ?? null;
    const cell = numberCell(fixed(value, info.digits, info.better === "zero"), value);
    cell.dataset.metric = info.key;
    cell.classList.toggle("chosen", info.key === state.metric);
    row.append(cell);
  }
  const count = numberCell(counted(numbers.count[bin]), numbers.count[bin]);
  count.dataset.metric = "count";
  row.append(count);
  return row;
}

function numberCell(text, value) {
  const cell = document.createElement("td");
  cell.textContent = text;
  cell.dataset.value = value === null ? "" : String(value);
  return cell;
}

/** Return a short line in the colour of a run. */
function swatch(run) {
  const element = document.createElement("span");
  element.className = "swatch";
  element.style.color = `var(--run-${run.colour})`;
  element.setAttribute("aria-hidden", "true");
  if (run.dash !== "solid") {
    element.classList.add(run.dash === "dot" ? "dot" : "dash");
  }
  return element;
}

/** Choose the bin of a new binning that holds the middle of the old one. */
function binAfterRebinning(middle) {
  const bins = binning();
  const found = bins.low.findIndex((low, bin) => low <= middle && middle < bins.high[bin]);
  return found >= 0 ? found : 0;
}

function startBinPanel() {
  const step = (by) => () => {
    const last = binning().low.length - 1;
    change({ bin: Math.min(last, Math.max(0, state.bin + by)) });
  };
  document.getElementById("bin-previous").addEventListener("click", step(-1));
  document.getElementById("bin-next").addEventListener("click", step(1));
  showBin();
  onChange(showBin);
}

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

// Tables and figures as csv files.

/** Return csv text; cells that a spreadsheet would run as a formula are quoted as text. */
function csvText(columns, rows) {
  const field = (value) => {
    if (value === null || value === undefined) {
      return "";
    }
    if (typeof value === "number") {
      return String(value);
    }
    const text = /^[=+@\t\r]|^-[^\d.]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}

/** Let the browser save a text as a file. */
function saveText(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Return {columns, rows} of a table on the page, with full numbers. */
function tableContent(table) {
  const text = (cell) => {
    if (cell.dataset.value !== undefined) {
      return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    }
    return cell.dataset.csv ?? cell.textContent.trim().replace(/\s+/g, " ");
  };
  const rows = [...table.rows].map((row) => [...row.cells].map(text));
  return { columns: rows[0], rows: rows.slice(1) };
}

function startTableDownloads() {
  for (const button of document.querySelectorAll(".download-table")) {
    button.addEventListener("click", () => {
      const table =
        button.dataset.table === "answer"
          ? document.querySelector(".answer-table:not([hidden]) table")
          : document.getElementById(`${button.dataset.table}-table`);
      const { columns, rows } = tableContent(table);
      saveText(`${table.dataset.file}.csv`, csvText(columns, rows));
    });
    button.setAttribute("aria-label", "download this table as csv");
  }
}

// Start: unpack, fill the selectors, draw.

/** Take the choices that the numbers suggest. */
function startState(data) {
  const others = data.runs.length > 1 ? 1 : 0;
  Object.assign(state, {
    data,
    metric: data.metrics[0].key,
    subset: data.defaults.subset,
    bin: data.defaults.bin,
    shown: data.runs.map(() => true),
    jointRun: others,
  });
}

async function start() {
  startTheme(redrawAll);
  startContents();
  startState(JSON.parse(await unpack("packed-data")));
  startAnswer();
  startControls();
  startBinPanel();
  startTableDownloads();
  await loadPlotly();
  startFigures();
  onChange(redrawChanged);
  let width = innerWidth;
  addEventListener("resize", () => {
    // a figure may change its form with its width
    if (innerWidth !== width) {
      width = innerWidth;
      redrawAll();
    }
  });
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  const note = document.createElement("p");
  note.className = "note";
  note.textContent = `The figures could not be drawn: ${error.message}. A browser of 2023 or later is needed.`;
  document.getElementById("figures").prepend(note);
  throw error;
});
