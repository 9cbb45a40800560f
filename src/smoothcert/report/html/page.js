(() => {
  "use strict";
  const { runs, fields, levels, attacks } = JSON.parse(document.getElementById("data").textContent);
  runs.forEach((run) => fields.forEach((field, k) => { run[field] = run.at.map((level) => levels[level][k]); }));
  const root = document.documentElement;
  const at = (id) => document.getElementById(id);
  const dashes = ["solid", "9px,3px", "2px,2px", "10px,3px,2px,3px", "15px,4px", "6px,2px,2px,2px,2px,2px"];
  const floor = (value, digits) => (Math.floor(value * 10 ** digits + 1e-9) / 10 ** digits).toFixed(digits);
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const shade = (k) => colour(`--s${k % 7}`);
  const shown = () => [...document.querySelectorAll("[data-run]")].map((box) => box.checked);
  const escaped = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // One radius axis for all runs; a run whose shape is unknown has no l-infinity radius.
  const scales = {
    l2: { words: "l2 radius (pixel units of [0, 1])", of: () => 1 },
    sigma: { words: "l2 radius / sigma", of: (run) => (run.sigma ? 1 / run.sigma : null) },
    linf: { words: "l-infinity radius (pixel units of [0, 1])", of: (run) => (run.dimension ? run.dimension ** -0.5 : null) },
  };

  function valueAt(run, field, radius) {
    let low = 0, high = run.radius.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (run.radius[middle] < radius) low = middle + 1; else high = middle;
    }
    return low < run.radius.length ? run[field][low] : 0;
  }

  function layout(xTitle, yTitle, more) {
    const narrow = window.innerWidth < 600, ink = colour("--ink"), line = colour("--line");
    const axis = { color: ink, gridcolor: line, zerolinecolor: line, automargin: true, fixedrange: narrow };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: narrow ? false : "zoom",
      margin: { l: 48, r: 12, t: 12, b: 44 }, font: { color: ink, size: 13 }, hovermode: "x unified",
      hoverlabel: { bgcolor: colour("--card"), bordercolor: line, font: { color: ink } },
      xaxis: { ...axis, title: { text: xTitle }, rangemode: "tozero", ...(more.x || {}) },
      yaxis: { ...axis, title: { text: yTitle }, ...(more.y || {}) },
      shapes: more.shapes || [],
    };
  }

  const settings = () => ({
    responsive: true, displaylogo: false, displayModeBar: window.innerWidth < 600 ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });

  function faded(name) {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(name.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},0.22)`;
  }

  function drawCurves() {
    const bound = at("bound").value, scale = scales[at("axis").value], visible = shown(), traces = [];
    runs.forEach((run, k) => {
      const by = scale.of(run);
      if (!visible[k] || by === null) return;
      const x = run.radius.map((r) => r * by), line = { shape: "vh", color: shade(k), dash: dashes[k % 6], width: 2.4 };
      if (bound) {
        traces.push({ x, y: run[bound].map((v) => 100 * v), line: { ...line, width: 0 }, mode: "lines", hoverinfo: "skip" });
      }
      traces.push({
        x, y: run.accuracy.map((v) => 100 * v), mode: "lines", line, name: escaped(run.name), meta: k,
        fill: bound ? "tonexty" : "none", fillcolor: faded(shade(k)),
        text: run.accuracy.map((v, i) => floor(100 * v, 1) + " %" + (bound ? `, at least ${floor(100 * run[bound][i], 1)} %` : "")),
        hovertemplate: "%{text}",
      });
    });
    if (at("axis").value === "l2") {
      attacks.forEach((attack, k) => traces.push({
        x: attack.size, y: attack.accuracy.map((v) => 100 * v), mode: "lines+markers", name: `${escaped(attack.name)}, under attack`,
        line: { color: shade(runs.length + k), width: 1, dash: "dot" },
        marker: { size: 9, symbol: ["circle", "square", "diamond", "triangle-up", "x"][k % 5], color: shade(runs.length + k) },
        text: attack.accuracy.map((v) => `${floor(100 * v, 1)} % under attack`), hovertemplate: "%{text}",
      }));
    }
    Plotly.react(at("curve"), traces, layout(scale.words, "certified accuracy (%)", { y: { range: [0, 100] } }), settings());
    read();
  }

  function read() {
    const bound = at("bound").value, radius = Math.max(0, Number(at("at").value) || 0), visible = shown();
    const rows = runs.map((run, k) => [k, run]).filter(([k]) => visible[k]);
    at("read").replaceChildren(...rows.map(([, run]) => {
      const line = document.createElement("div");
      const least = bound ? `, at least ${floor(100 * valueAt(run, bound, radius), 1)} %` : "";
      const mark = run.lowerBound ? ">=" : "";
      line.textContent = `${run.name}: ${mark}${floor(100 * valueAt(run, "accuracy", radius), 1)} %${least}; ACR ${mark}${floor(run.acr, 3)}`;
      return line;
    }));
  }

  function drawWall() {
    const visible = shown(), shapes = [], traces = [];
    runs.forEach((run, k) => {
      if (!visible[k]) return;
      const line = { color: shade(k), dash: dashes[k % 6], width: 2.2 };
      traces.push({ x: run.wall.share.map((v) => 100 * v), y: run.wall.radius, mode: "lines", line, name: escaped(run.name),
        hovertemplate: `%{y:.3f} (r_max ${run.wall.most === null ? "unknown" : `${floor(run.wall.most, 3)}, ${floor(100 * run.wall.at, 1)} % of images at it`})` });
      if (run.wall.most !== null) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: run.wall.most, y1: run.wall.most,
        line: { color: shade(k), width: 1, dash: "dot" } });
    });
    Plotly.react(at("wall"), traces, layout("images, largest radius first (%)", "l2 radius",
      { x: { range: [0, 100] }, y: { rangemode: "tozero" }, shapes }), settings());
  }

  function drawVotes(id, field, words) {
    const visible = shown(), traces = [];
    runs.forEach((run, k) => {
      if (!visible[k] || !run.votes) return;
      const edges = run.votes.edges, y = run.votes[field].map((v) => (v > 0 ? 100 * v : null));
      traces.push({ x: edges.slice(0, -1).map((e, i) => (e + edges[i + 1]) / 2), y, mode: "lines+markers", name: escaped(run.name),
        line: { shape: "hvh", color: shade(k), dash: dashes[k % 6], width: 2 }, marker: { size: 4, color: shade(k) },
        hovertemplate: "%{y:.2f} % of images" });
    });
    at(id).parentElement.hidden = !runs.some((run) => run.votes);
    const least = Math.min(...traces.flatMap((trace) => trace.y.filter((v) => v !== null)));
    const tickvals = least > 0.2 ? [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100] : [0.0001, 0.001, 0.01, 0.1, 1, 10, 100];
    Plotly.react(at(id), traces, layout(words, "images (%)", { x: { range: [0, 1] }, y: { type: "log", tickvals } }), settings());
  }

  function drawAll() {
    drawCurves();
    drawWall();
    drawVotes("observed", "observed", "share of the votes");
    drawVotes("bounded", "lower", "lower bound");
  }

  function applyTheme() {
    const asked = at("theme").value;
    root.dataset.theme = asked === "auto" ? (dark.matches ? "dark" : "light") : asked;
    drawAll();
  }

  function sortBy(button) {
    const head = button.closest("th"), row = head.parentElement, body = row.closest("table").tBodies[0];
    const column = [...row.children].indexOf(head), numeric = head.classList.contains("n");
    const down = head.ariaSort ? head.ariaSort === "ascending" : numeric;
    const key = (line) => {
      const cell = line.children[column], value = cell.dataset.v === undefined ? cell.textContent : cell.dataset.v;
      if (!numeric) return value;
      const number = Number(value.replace(/[^-+.e\d]/g, "") || NaN);
      return Number.isNaN(number) ? -1 : number;  // "-" and "?" stand below all figures
    };
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    const lines = [...body.rows].sort((a, b) => (down ? -1 : 1) * order(key(a), key(b)));
    [...row.children].forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...lines);
  }

  document.querySelectorAll(".sortable th button").forEach((b) => b.addEventListener("click", () => sortBy(b)));
  document.querySelectorAll("[data-run]").forEach((box) => box.addEventListener("change", drawAll));
  document.querySelectorAll(".filter").forEach((choice) => choice.addEventListener("change", () => {
    choice.closest("div").querySelectorAll(".cards figure").forEach((card) => {
      card.hidden = choice.value !== "" && !card.classList.contains(choice.value);
    });
  }));
  at("bound").addEventListener("change", drawCurves);
  at("axis").addEventListener("change", drawCurves);
  at("at").addEventListener("input", read);
  at("theme").addEventListener("change", applyTheme);
  dark.addEventListener("change", applyTheme);
  applyTheme();
})();
