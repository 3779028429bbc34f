"use strict";
/* Draws the figures of a page with uPlot, from the JSON that stands beside each; again when that has changed. */
(() => {
  const HEIGHT = 320;
  const COLOURS = ["#3b6fd4", "#c2620a", "#8a55c8", "#0b8a8a", "#b0366f", "#6a7b00", "#7a5b43", "#4a8f3c"];
  const charts = new Map(); // figure -> {plot, text}

  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = value => value == null ? "" : Number(value.toPrecision(4)).toString();

  function axes(names) {
    return names.map(label => ({
      label, stroke: colour("--soft"), font: "12px system-ui", labelFont: "12px system-ui", labelSize: 22,
      grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 },
      values: (_, ticks) => ticks.map(tick => tick == null ? "" : label === "trial" || label === "epochs" ? (Number.isInteger(tick) ? tick : "") : short(tick)),
    }));
  }

  /* A box beside the pointer with what is nearest, which a click opens. */
  function tip(describe) {
    const box = document.createElement("div");
    let address = null;
    box.className = "tip";
    box.hidden = true;
    return {
      hooks: {
        init: plot => {
          plot.over.append(box);
          plot.over.addEventListener("mouseleave", () => { box.hidden = true; });
          plot.over.addEventListener("click", () => { if (address) location.href = address; });
        },
        setCursor: plot => {
          const { left, top } = plot.cursor;
          const found = left < 0 ? null : describe(plot, left, top);
          box.hidden = !found;
          address = found?.address ?? null;
          plot.over.classList.toggle("opens", address !== null);
          if (!found) return;
          box.replaceChildren(...found.lines.map(line => Object.assign(document.createElement("div"), { textContent: line })));
          const right = left > plot.over.clientWidth / 2;
          box.style.left = right ? "" : `${left + 14}px`;
          box.style.right = right ? `${plot.over.clientWidth - left + 14}px` : "";
          box.style.top = `${Math.max(0, Math.min(top, plot.over.clientHeight - 70))}px`;
        },
      },
    };
  }

  function nearest(plot, left, top, series) {
    let best = null;
    for (const index of series) {
      const values = plot.data[index];
      for (let place = 0; place < values.length; place++) {
        if (values[place] == null) continue;
        const x = plot.valToPos(plot.data[0][place], "x") - left, y = plot.valToPos(values[place], "y") - top;
        const far = x * x + y * y;
        if (far < 1600 && (best === null || far < best.far)) best = { far, index, place };
      }
    }
    return best;
  }

  const KINDS = {
    progress(figure) {
      const one = stopped => figure.values.map((value, place) => figure.stopped[place] === stopped ? value : null);
      const dots = (label, name) => ({
        label, stroke: colour(name), paths: () => null, points: { show: true, size: 8, fill: colour(name), stroke: colour(name) }, value: (_, v) => short(v),
      });
      return {
        data: [figure.numbers, one(false), one(true), figure.best],
        options: {
          axes: axes(["trial", figure.metric]),
          series: [{ label: "trial" }, dots("completed", "--run"), dots("stopped early", "--stop"),
            { label: "best so far", stroke: colour("--best"), width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (_, v) => short(v) }],
          plugins: [tip((plot, left, top) => {
            const found = nearest(plot, left, top, [1, 2]);
            if (!found) return null;
            const number = plot.data[0][found.place];
            const state = found.index === 2 ? "stopped early" : "completed";
            return { lines: [`trial ${number}, ${state}`, `${figure.metric} ${short(plot.data[found.index][found.place])}`], address: figure.address + number };
          })],
        },
      };
    },
    curves(figure, chosen) {
      const lines = figure.groups[chosen] ?? [];
      const numbers = [...new Set(lines.map(line => line.number))];
      const tables = lines.map(line => [line.steps, line.values]);
      return {
        data: tables.length ? uPlot.join(tables) : [[]],
        options: {
          axes: axes(["epochs", chosen]),
          series: [{ label: "epochs" }, ...lines.map(line => ({
            label: line.label, width: line.best ? 3 : 1.6, dash: line.dashed ? [5, 4] : undefined, spanGaps: true, value: (_, v) => short(v),
            stroke: line.best ? colour("--best") : COLOURS[numbers.indexOf(line.number) % COLOURS.length], points: { show: line.steps.length < 3 },
          }))],
          plugins: [tip((plot, left, top) => {
            const found = nearest(plot, left, top, lines.map((_, place) => place + 1));
            if (!found) return null;
            const line = lines[found.index - 1];
            const best = line.best ? ", the best" : "";
            return { lines: [line.label + best, `epoch ${plot.data[0][found.place]}: ${short(plot.data[found.index][found.place])}`], address: line.address ?? null };
          })],
        },
      };
    },
  };

  function choose(figure, data) {
    const select = figure.querySelector("select[data-metric]");
    if (!select) return null;
    const names = Object.keys(data.groups).sort();
    const wanted = select.value || data.chosen;
    const chosen = names.includes(wanted) ? wanted : names.includes(data.chosen) ? data.chosen : names[0] ?? "";
    select.replaceChildren(...names.map(name => new Option(name, name, false, name === chosen)));
    select.closest("label").hidden = !names.length;
    if (!select.onchange) select.onchange = () => draw(figure, true);
    return chosen;
  }

  function draw(figure, anyway) {
    const text = document.getElementById(figure.dataset.figure)?.textContent;
    const box = figure.querySelector(".plot"), known = charts.get(figure);
    if (!text || (!anyway && known?.text === text)) return;
    const data = JSON.parse(text);
    const { data: table, options } = KINDS[data.kind](data, choose(figure, data));
    known?.plot.destroy();
    const whole = table.length > 1 && table[0].length > 0;
    box.replaceChildren();
    box.classList.toggle("empty", !whole);
    for (const button of figure.querySelectorAll("button[data-save]")) button.hidden = !whole;
    if (!whole) {
      box.append(Object.assign(document.createElement("p"), { className: "soft", textContent: "Nothing to draw yet." }));
      charts.delete(figure);
      return;
    }
    const single = table[0].length === 1;
    const plot = new uPlot({
      width: Math.max(box.clientWidth, 200), height: HEIGHT, cursor: { drag: { x: true, y: true, uni: 20 }, points: { show: data.kind === "curves" } },
      legend: { show: options.series.length <= 14 }, scales: { x: { time: false, ...(single ? { range: (_, low) => [low - 1, low + 1] } : {}) } }, ...options,
    }, table, box);
    charts.set(figure, { plot, text });
  }

  function save(button) {
    const canvas = button.closest("figure").querySelector("canvas");
    if (!canvas) return;
    const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const pen = copy.getContext("2d");
    pen.fillStyle = colour("--card");
    pen.fillRect(0, 0, copy.width, copy.height);
    pen.drawImage(canvas, 0, 0);
    copy.toBlob(blob => {
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${button.dataset.save}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  const figures = [...document.querySelectorAll("figure[data-figure]")];
  const drawAll = anyway => figures.forEach(figure => draw(figure, anyway));
  drawAll(false);
  document.addEventListener("fresh", () => drawAll(false));
  document.addEventListener("click", event => { if (event.target.dataset?.save) save(event.target); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  let resized = null;
  addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => charts.forEach(({ plot }, figure) => plot.setSize({ width: figure.querySelector(".plot").clientWidth, height: HEIGHT })), 150);
  });
})();
