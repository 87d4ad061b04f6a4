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
