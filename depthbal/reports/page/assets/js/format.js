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
