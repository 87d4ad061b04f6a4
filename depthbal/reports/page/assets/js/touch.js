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
