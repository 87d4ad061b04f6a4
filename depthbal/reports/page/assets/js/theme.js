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
