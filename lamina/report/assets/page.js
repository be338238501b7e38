// What the page can do beyond lying there: copy, tell numbers on hover and focus, curves that are read point by point.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  for (const button of all("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentNode.querySelector("code");
      let said = "Copied";
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        said = "Selected";
      }
      button.textContent = said;
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  // Titles become tips that focus shows too; one cell of a drawing is in the tab order, arrows move among them.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const show = (text, cell) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = cell.getBoundingClientRect();
    const x = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 6;
    const y = above > 0 ? above : box.bottom + 6;
    tip.style.left = `${x + scrollX}px`;
    tip.style.top = `${y + scrollY}px`;
  };
  const hide = () => { tip.hidden = true; };
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  for (const figure of all("figure.cells")) {
    const places = new Map();
    let current = null;
    for (const cell of all(".scroll .cell", figure)) {
      const title = cell.querySelector("title");
      cell.dataset.tip = title.textContent;
      cell.setAttribute("aria-label", title.textContent);
      cell.setAttribute("role", "img");
      cell.setAttribute("tabindex", current ? "-1" : "0");
      title.remove();
      current ??= cell;
      places.set(`${cell.dataset.row},${cell.dataset.column}`, cell);
    }
    figure.addEventListener("keydown", (event) => {
      const cell = event.target.closest(".cell");
      if (event.key === "Escape") hide();
      if (!cell || !moves[event.key]) return;
      event.preventDefault();
      const [down, right] = moves[event.key];
      places.get(`${+cell.dataset.row + down},${+cell.dataset.column + right}`)?.focus();
    });
    figure.addEventListener("focusin", (event) => {
      const cell = event.target.closest(".cell");
      if (!cell) return;
      current.setAttribute("tabindex", "-1");
      cell.setAttribute("tabindex", "0");
      current = cell;
      show(cell.dataset.tip, cell);
    });
    figure.addEventListener("focusout", hide);
    figure.addEventListener("pointerover", (event) => {
      const cell = event.target.closest(".scroll .cell");
      if (cell) show(cell.dataset.tip, cell); else hide();
    });
    figure.addEventListener("pointerleave", hide);
  }

  // A heat map is a few paths; where its cells are is arithmetic, and what they say is in its table.
  for (const figure of all("figure.map")) {
    const svg = figure.querySelector("svg.heat");
    const table = figure.querySelector("table");
    if (!svg || !table) continue;
    const [left, top, width, height] = ["left", "top", "width", "height"].map((name) => +svg.dataset[name]);
    const turned = table.dataset.turned === "true";
    const lines = table.tBodies[0].rows, heads = table.tHead.rows[0].cells;
    const rows = turned ? heads.length - 1 : lines.length, columns = turned ? lines.length : heads.length - 1;
    const here = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    here.setAttribute("class", "here");
    here.setAttribute("width", width);
    here.setAttribute("height", height);
    let at = [0, 0];
    const tell = ([row, column]) => {
      const [line, head] = turned ? [column, row] : [row, column];
      const name = (index, isLine) => (isLine ? lines[index].cells[0] : heads[index + 1]).textContent;
      const cell = lines[line].cells[head + 1];
      const value = cell.textContent ? `${table.dataset.value} ${cell.textContent}` : "already gone";
      at = [row, column];
      here.setAttribute("x", left + column * width);
      here.setAttribute("y", top + row * height);
      svg.append(here);
      show(`${table.dataset.rows} ${name(row, !turned)}, ${table.dataset.columns} ${name(column, turned)}: ${value}${cell.classList.contains("chosen") ? ", chosen" : ""}`, here);
    };
    const leave = () => {
      here.remove();
      hide();
    };
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
      const column = Math.floor(((event.clientX - box.left) * scale - left) / width);
      const row = Math.floor(((event.clientY - box.top) * scale - top) / height);
      if (row >= 0 && row < rows && column >= 0 && column < columns) tell([row, column]); else leave();
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) tell(at); });
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (!moves[event.key]) return;
      event.preventDefault();
      const [down, right] = moves[event.key];
      tell([Math.min(Math.max(0, at[0] + down), rows - 1), Math.min(Math.max(0, at[1] + right), columns - 1)]);
    });
  }

  // Curves. Ranges, ticks and labels come with the data, so that this chart and the drawn one it covers agree.
  const height = 346, above = 36, below = 46, left = 56, roomForLabels = 128;
  const draw = (figure, data) => {
    const scroll = figure.querySelector(".scroll");
    const readout = figure.querySelector(".readout");
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const font = (weight) => `${weight} 12px ${getComputedStyle(document.body).fontFamily}`;
    const colours = { method: colour("--method"), baseline: colour("--baseline"), reference: colour("--ink") };
    const wide = scroll.clientWidth >= 600;
    const xs = [...new Set(data.curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
    // A place that a curve has no point for is undefined, and the line goes on; null was not measured, and it breaks.
    const align = (curve, values) => {
      const at = new Map(curve.x.map((x, i) => [x, values[i]]));
      return xs.map((x) => at.get(x));
    };
    const columns = [xs], series = [{}], bands = [];
    for (const curve of data.curves) {
      curve.shown = new Map(curve.x.map((x, i) => [x, curve.texts[i]]));
      if (curve.low) {
        columns.push(align(curve, curve.high), align(curve, curve.low));
        const hiddenLine = { stroke: "transparent", width: 0, points: { show: false } };
        series.push(hiddenLine, hiddenLine);
        bands.push({ series: [series.length - 2, series.length - 1], fill: colour("--band") });
      }
    }
    const order = { reference: 0, baseline: 1, method: 2 };
    for (const curve of [...data.curves].sort((a, b) => order[a.role] - order[b.role])) {
      columns.push(align(curve, curve.y));
      const method = curve.role === "method";
      series.push({
        stroke: colours[curve.role], width: method ? 2.5 : curve.role === "baseline" ? 1.5 : 1,
        dash: curve.dash ? curve.dash.split(" ").map(Number) : undefined,
        points: { show: method && xs.length <= 80, size: 6, fill: colours.method, stroke: colours.method },
      });
    }
    const axis = (of, size, grid) => ({
      splits: () => of.ticks, values: () => of.texts, filter: () => of.ticks, stroke: colour("--quiet"), font: font(400), size, gap: grid ? 4 : 2,
      grid: { show: grid, stroke: colour("--rule"), width: 1 }, ticks: { show: !grid, stroke: colour("--quiet"), width: 1, size: 5 },
      border: { show: !grid, stroke: colour("--quiet"), width: 1 },
    });
    const decorate = (u) => {
      const { ctx } = u, ratio = devicePixelRatio, box = u.bbox;
      const write = (text, x, y, colourOf, align, weight = 400) => {
        ctx.font = font(weight).replace("12px", `${12 * ratio}px`);
        ctx.fillStyle = colourOf;
        ctx.textAlign = align;
        ctx.textBaseline = "alphabetic";
        ctx.fillText(text, x, y);
      };
      ctx.save();
      ctx.setLineDash([]);
      write(data.y.name, 0, 12 * ratio, colour("--quiet"), "left");
      write(data.x.name, box.left + box.width / 2, box.top + box.height + 38 * ratio, colour("--quiet"), "center");
      if (wide) {
        for (const label of data.labels) {
          const { name, role } = data.curves[label.curve];
          write(name, box.left + box.width + 11 * ratio, box.top + (label.y + 4) * ratio, role === "method" ? colours.method : colour("--quiet"), "left", role === "method" ? 600 : 400);
        }
      }
      if (data.chosen) {
        const x = u.valToPos(data.chosen.x, "x", true), y = u.valToPos(data.chosen.y, "y", true);
        ctx.strokeStyle = colour("--accent");
        ctx.lineWidth = ratio;
        ctx.setLineDash([3 * ratio, 3 * ratio]);
        ctx.beginPath();
        ctx.moveTo(x, box.top);
        ctx.lineTo(x, box.top + box.height);
        ctx.stroke();
        ctx.setLineDash([]);
        ctx.lineWidth = 2.25 * ratio;
        ctx.beginPath();
        ctx.arc(x, y, 6 * ratio, 0, 2 * Math.PI);
        ctx.stroke();
        const edge = u.ctx.canvas.width - 40 * ratio;
        write(data.chosen.text, Math.min(x, edge), box.top - 6 * ratio, colour("--accent"), "center", 600);
      }
      ctx.restore();
    };
    const hint = charts[0].figure === figure ? "Point at a chart, or focus it and use the arrow keys, to read its values." : "";
    const read = (u) => {
      const i = u.cursor.idx;
      readout.textContent = i == null ? hint : `${data.x.name} ${xs[i]}: ` +
        data.curves.filter((curve) => curve.shown.has(xs[i])).map((curve) => `${curve.name} ${curve.shown.get(xs[i])}`).join(" · ");
    };
    const plot = document.createElement("div");
    plot.className = "plot";
    plot.tabIndex = 0;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", scroll.getAttribute("aria-label"));
    scroll.querySelector(".plot")?.remove();
    scroll.append(plot);
    scroll.removeAttribute("tabindex");
    readout.hidden = false;
    readout.textContent = hint;
    const u = new uPlot({
      width: scroll.clientWidth, height, padding: [above, wide ? roomForLabels : 12, 0, 0], legend: { show: false }, bands, series,
      scales: {
        x: { time: false, distr: data.x.logarithmic ? 3 : 1, range: data.x.range },
        y: { distr: data.y.logarithmic ? 3 : 1, range: data.y.range },
      },
      axes: [axis(data.x, below, false), axis(data.y, left, true)],
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      hooks: { draw: [decorate], setCursor: [read] },
    }, columns, plot);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const at = u.cursor.idx == null ? (step > 0 ? 0 : xs.length - 1) : Math.min(Math.max(0, u.cursor.idx + step), xs.length - 1);
      u.setCursor({ left: u.valToPos(xs[at], "x"), top: 10 });
    });
    return u;
  };
  const charts = [];
  for (const figure of all("figure.chart")) {
    const source = figure.querySelector("script");
    if (source) charts.push({ figure, data: JSON.parse(source.textContent), width: 0, plot: null });
  }
  const redraw = () => {
    for (const chart of charts) {
      const { clientWidth } = chart.figure.querySelector(".scroll");
      if (clientWidth === 0 || clientWidth === chart.width) continue;  // folded away, or as it was
      chart.plot?.destroy();
      chart.plot = draw(chart.figure, chart.data);
      chart.width = clientWidth;
    }
  };
  redraw();
  addEventListener("resize", redraw);
  for (const fold of all("details")) fold.addEventListener("toggle", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const chart of charts) chart.width = 0;
    redraw();
  });
  addEventListener("beforeprint", () => {
    for (const fold of all("details.section")) fold.open = true;
  });
})();
