// Cuts single pictures out of a sample grid, which is one image: a row for the teacher above, one for the
// student below, a column for each prompt. The layout comes with the page.
"use strict";

const Grids = (() => {
  const images = new Map();

  function load(url) {
    if (!images.has(url)) {
      const image = new Image();
      image.src = url;
      images.set(url, image.decode().then(() => image));
      images.get(url).catch(() => images.delete(url)); // to be asked for again
    }
    return images.get(url);
  }

  function columns(image, layout) {
    return Math.round((image.naturalWidth - layout.label) / (layout.cell + layout.gap));
  }

  function cut(image, layout, column, row, canvas) {
    const pitch = layout.cell + layout.gap;
    const x = layout.label + column * pitch;
    const y = image.naturalHeight - layout.footer - (row === "teacher" ? 2 : 1) * pitch;
    canvas.width = canvas.height = layout.cell;
    canvas.getContext("2d").drawImage(image, x, y, layout.cell, layout.cell, 0, 0, layout.cell, layout.cell);
  }

  function picture(label) {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    return canvas;
  }

  return { load, columns, cut, picture };
})();
