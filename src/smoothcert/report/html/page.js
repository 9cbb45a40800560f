(() => {
  "use strict";
  const { runs, fields, levels, attacks, mark } = JSON.parse(document.getElementById("data").textContent);
  runs.forEach((run) => fields.forEach((field, k) => { run[field] = run.at.map((level) => levels[level][k]); }));
  const root = document.documentElement;
  const at = (id) => document.getElementById(id);
  const floor = (value, digits) => (Math.floor(value * 10 ** digits + 1e-9) / 10 ** digits).toFixed(digits);
  const percent = (share) => `${floor(100 * share, 1)} %`;
  const shown = () => {
    const boxes = [...document.querySelectorAll("[data-run]")];
    return runs.map((run, k) => ({ run, look: { colour: k % 7, dash: k % 6 } })).filter((_, k) => boxes[k].checked);
  };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const TOLD = 12;  // runs that the pointer tells of

  // One radius axis for all runs; a run whose shape is unknown has no l-infinity radius.
  const scales = {
    l2: { words: "l2 radius (pixels in [0, 1])", of: () => 1 },
    sigma: { words: "l2 radius / sigma", of: (run) => (run.sigma ? 1 / run.sigma : null) },
    linf: { words: "l-infinity radius (pixels in [0, 1])", of: (run) => (run.dimension ? run.dimension ** -0.5 : null) },
  };

  // The value beside the first of the sorted `places` at or beyond a place; 0 beyond the last.
  function valueAt(places, values, place) {
    let low = 0, high = places.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (places[middle] < place) low = middle + 1; else high = middle;
    }
    return low < places.length ? values[low] : 0;
  }

  // What a run claims at a radius. A run that stopped early settled some radii alone: elsewhere it gives lower bounds.
  function claim(run, radius, bound) {
    const k = run.points ? run.points.radius.findIndex((r) => Math.abs(r - radius) < 1e-9) : -1;
    const value = (field) => (k < 0 ? valueAt(run.radius, run[field], radius) : run.points[field][k]);
    return `${run.name}: ${run.points && k < 0 ? ">=" : ""}${percent(value("accuracy"))}${bound ? `, at least ${percent(value(bound))}` : ""}`;
  }

  function drawCurves() {
    const bound = at("bound").value, axis = at("axis").value, scale = scales[axis], series = [];
    const visible = shown().map((one) => ({ ...one, by: scale.of(one.run) })).filter(({ by }) => by !== null);
    const inPercent = (values) => values.map((v) => 100 * v);
    visible.forEach(({ run, look, by }) => {
      const drawn = run.points || run;
      series.push({ kind: run.points ? "points" : "steps", x: drawn.radius.map((r) => r * by), y: inPercent(drawn.accuracy),
        low: bound ? inPercent(drawn[bound]) : null, mark: run.points ? mark : null, ...look });
    });
    if (attacks.length) at("points").hidden = axis !== "l2";
    if (axis === "l2") {
      attacks.forEach((attack, k) => series.push({ kind: "line", x: attack.size, y: inPercent(attack.accuracy), mark: attack.mark,
        colour: (runs.length + k) % 7, dash: 2 }));
    }
    const furthest = Math.max(...series.flatMap((one) => one.x.slice(-1)), 0) || 1;
    const tell = (x) => [`at ${parseFloat(x.toPrecision(3))}`, ...visible.slice(0, TOLD).map(({ run, by }) => claim(run, x / by, bound))];
    drawChart(at("curve"), { x: { label: scale.words, min: 0, max: 1.03 * furthest }, series, tell,
      y: { label: "certified accuracy (%)", min: 0, max: 100 } });
    read();
  }

  function read() {
    const bound = at("bound").value, radius = Math.max(0, Number(at("at").value) || 0);
    at("read").replaceChildren(...shown().map(({ run }) => {
      const line = document.createElement("div");
      line.textContent = `${claim(run, radius, bound)}; ACR ${run.points ? ">=" : ""}${floor(run.acr, 3)}`;
      return line;
    }));
  }

  function drawWall() {
    const visible = shown(), known = visible.filter(({ run }) => run.wall.most !== null);
    const series = visible.map(({ run, look }) => ({ kind: "line", x: run.wall.share.map((v) => 100 * v), y: run.wall.radius, ...look }));
    const highest = Math.max(...visible.flatMap(({ run }) => [run.wall.radius[0] || 0, run.wall.most || 0]), 0) || 1;
    const tell = (x) => [`at ${floor(x, 1)} %`, ...visible.slice(0, TOLD).map(({ run }) => {
      const most = run.wall.most === null ? "unknown" : `${floor(run.wall.most, 3)}, ${percent(run.wall.at)} of images at it`;
      return `${run.name}: radius ${floor(valueAt(run.wall.share, run.wall.radius, x / 100), 3)} (r_max ${most})`;
    })];
    drawChart(at("wall"), { x: { label: "images, largest radius first (%)", min: 0, max: 100 }, series, tell,
      y: { label: "l2 radius", min: 0, max: 1.05 * highest }, levels: known.map(({ run, look }) => ({ y: run.wall.most, ...look })) });
  }

  function drawVotes(id, field, words) {
    const visible = shown().filter(({ run }) => run.votes);
    at(id).closest("figure").hidden = !runs.some((run) => run.votes);
    const series = visible.map(({ run, look }) => ({ kind: "bins", x: run.votes.edges, y: run.votes[field].map((v) => 100 * v), ...look }));
    const least = Math.min(...series.flatMap((one) => one.y.filter((v) => v > 0)), 100);
    const tell = (x) => visible.slice(0, TOLD).map(({ run }) => {
      const bin = Math.max(0, run.votes.edges.findIndex((edge) => edge > x) - 1);
      return `${run.name}: ${floor(100 * run.votes[field][bin], 2)} % of images`;
    });
    drawChart(at(id), { x: { label: words, min: 0, max: 1 }, y: { label: "images (%)", min: least / 2, max: 100, log: true }, series, tell });
  }

  function drawAll() {
    drawCurves();
    drawWall();
    drawVotes("observed", "observed", "share of the votes");
    drawVotes("bounded", "lower", "lower bound");
  }

  function hintAtScrolling() {
    document.querySelectorAll(".wide").forEach((box) => box.classList.toggle("scrolls", box.scrollWidth > box.clientWidth + 1));
  }

  function applyTheme() {
    const asked = at("theme").value;
    root.dataset.theme = asked === "auto" ? (dark.matches ? "dark" : "light") : asked;
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
  document.querySelectorAll("details").forEach((part) => part.addEventListener("toggle", hintAtScrolling));
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
  let width = 0;  // a change of height, such as by a phone's address bar, needs no redraw
  new ResizeObserver(() => {
    if (at("curve").clientWidth === width) return;
    width = at("curve").clientWidth;
    drawAll();
    hintAtScrolling();
  }).observe(at("curve"));
})();
