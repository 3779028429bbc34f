"use strict";
/* Draws a confusion matrix of any number of classes on a canvas, says what is below the pointer, and one class in words. */
(() => {
  const figure = document.querySelector("figure[data-confusion]");
  if (!figure) return;
  const box = figure.querySelector(".plot"), order = figure.querySelector("select[data-order]");
  const picker = document.querySelector("select[data-class]"), ofClass = document.querySelector("[data-of-class]");
  const WIDEST = 860; // pixels
  const MOST_NAMED = 60; // classes whose names fit beside the cells
  const others = document.querySelectorAll("[data-of-matrix]");
  let text = null, data = null, shown = null, tip = null;

  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const share = (count, all) => `${count} of ${all}${all ? ` (${Math.round(100 * count / all)}%)` : ""}`;
  const cut = (name, most) => name.length > most ? `${name.slice(0, most - 1)}…` : name;

  function read() {
    const found = document.getElementById(figure.dataset.confusion)?.textContent;
    if (!found || found === text) return false;
    text = found;
    data = JSON.parse(found);
    data.rows = data.names.map(() => new Map());
    for (const [row, column, count] of data.cells) data.rows[row].set(column, count);
    data.right = data.names.map((_, place) => data.rows[place].get(place) ?? 0);
    return true;
  }

  function ordered() {
    const places = data.names.map((_, place) => place);
    const recall = place => data.videos[place] ? data.right[place] / data.videos[place] : 2; // without a video: at the end
    return order.value === "worst" ? places.sort((a, b) => recall(a) - recall(b) || a - b) : places;
  }

  function draw() {
    const places = ordered(), count = places.length, isNamed = count <= MOST_NAMED;
    const longest = isNamed ? Math.min(18, Math.max(...data.names.map(name => name.length), 1)) : 0;
    const left = isNamed ? 14 + 6.6 * longest : 4, top = isNamed ? left : 4;
    // Cells as large as the box allows, but never too small to point at; the box scrolls where they do not fit.
    const room = Math.min(box.clientWidth, WIDEST) - left - 8;
    const cell = Math.max(2, Math.min(56, Math.floor(room / count)), isNamed ? 12 : 2);
    const width = left + cell * count + 4, height = top + cell * count + 4, scale = devicePixelRatio || 1;
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
    Object.assign(canvas, { width: width * scale, height: height * scale });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px`, display: "block" });
    pen.scale(scale, scale);
    pen.fillStyle = colour("--code");
    pen.fillRect(left, top, cell * count, cell * count);
    const good = colour("--best"), bad = colour("--stop"), gap = cell > 6 ? 1 : 0;
    const at = new Map(places.map((place, index) => [place, index]));
    pen.font = `${Math.min(12, cell - 1)}px system-ui`;
    pen.textBaseline = "middle";
    places.forEach((place, row) => {
      for (const [said, videos] of data.rows[place]) {
        const part = data.videos[place] ? videos / data.videos[place] : 1, x = left + cell * at.get(said), y = top + cell * row;
        pen.globalAlpha = .18 + .82 * Math.sqrt(part); // one video of a large class is to be seen too
        pen.fillStyle = said === place ? good : bad;
        pen.fillRect(x, y, cell - gap, cell - gap);
        pen.globalAlpha = 1;
        if (cell < 26) continue;
        pen.fillStyle = part > .45 ? colour("--card") : colour("--text");
        pen.textAlign = "center";
        pen.fillText(videos, x + cell / 2, y + cell / 2);
      }
      if (!isNamed) return;
      pen.fillStyle = colour("--text");
      pen.textAlign = "right";
      pen.fillText(cut(data.names[place], 18), left - 6, top + cell * (row + .5));
      pen.save();
      pen.translate(left + cell * (row + .5), top - 6);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(cut(data.names[place], 18), 0, 0);
      pen.restore();
    });
    const stage = document.createElement("div");
    stage.className = "matrix";
    tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
    stage.append(canvas, tip);
    box.replaceChildren(stage);
    shown = { places, cell, left, top, count };
    canvas.addEventListener("mousemove", point);
    canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
    canvas.addEventListener("click", event => { const found = cellAt(event); if (found) { picker.value = found.row; say(); } });
  }

  function cellAt(event) {
    const column = Math.floor((event.offsetX - shown.left) / shown.cell), row = Math.floor((event.offsetY - shown.top) / shown.cell);
    const inside = row >= 0 && column >= 0 && row < shown.count && column < shown.count;
    return inside ? { row: shown.places[row], column: shown.places[column] } : null;
  }

  function point(event) {
    const found = cellAt(event);
    tip.hidden = !found;
    if (!found) return;
    const videos = data.rows[found.row].get(found.column) ?? 0;
    const lines = [`class ${data.names[found.row]}`, found.row === found.column ? "recognised" : `said ${data.names[found.column]}`, share(videos, data.videos[found.row])];
    tip.replaceChildren(...lines.map(line => Object.assign(document.createElement("div"), { textContent: line })));
    // Beside the pointer, and inside the part of the box that is seen.
    const x = event.offsetX - box.scrollLeft > box.clientWidth / 2 ? event.offsetX - tip.offsetWidth - 14 : event.offsetX + 14;
    tip.style.left = `${Math.max(box.scrollLeft, x)}px`;
    tip.style.top = `${Math.max(0, event.offsetY - 20)}px`;
  }

  function pick() {
    const chosen = picker.value;
    picker.replaceChildren(...data.names.map((name, place) => new Option(name, place, false, String(place) === chosen)));
  }

  function say() {
    const place = Number(picker.value), videos = data.videos[place];
    const wrong = [...data.rows[place]].filter(([said]) => said !== place).sort((a, b) => b[1] - a[1]);
    const named = wrong.slice(0, 5).map(([said, count]) => `${count} as ${data.names[said]}`);
    ofClass.textContent = `${share(data.right[place], videos)} right${named.length ? `; ${named.join(", ")}${wrong.length > 5 ? ", …" : ""}` : ""}`;
  }

  function all() {
    if (read()) { draw(); pick(); say(); }
    if (!data) box.replaceChildren(Object.assign(document.createElement("p"), { className: "soft", textContent: "No validation of this trial has sent one yet." }));
    for (const one of others) one.hidden = !data;
  }

  order.onchange = draw;
  picker.onchange = say;
  all();
  document.addEventListener("fresh", all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (data) draw(); });
  let resized = null;
  addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => { if (data) draw(); }, 150); });
})();
