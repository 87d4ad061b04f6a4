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
