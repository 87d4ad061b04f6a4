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
