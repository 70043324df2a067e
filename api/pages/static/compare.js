// Cuts the pictures of every student into a table whose columns are the prompts.
"use strict";

(() => {
  const section = document.getElementById("grids");
  if (!section) return;
  const layout = JSON.parse(section.dataset.layout);
  for (const table of section.querySelectorAll("table")) {
    const prompts = JSON.parse(table.dataset.prompts);
    for (const row of table.querySelectorAll("tr[data-url]")) fill(row, prompts);
  }

  async function fill(row, prompts) {
    const image = await Grids.load(row.dataset.url).catch(() => null);
    if (!image) return;
    for (let column = 0; column < Grids.columns(image, layout); column += 1) {
      const canvas = Grids.picture(prompts[column] ?? `picture ${column + 1}`);
      Grids.cut(image, layout, column, row.dataset.row, canvas);
      row.insertCell().append(canvas);
    }
  }
})();
