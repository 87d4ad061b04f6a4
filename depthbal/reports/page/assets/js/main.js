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
