// Draws one chart as SVG into a box, as wide as the box is. Colours and dashes are classes, so a theme needs no redraw.
const drawChart = (() => {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";
  const words = (value) => String(parseFloat(value.toPrecision(6)));

  function add(parent, tag, attributes, text) {
    const made = document.createElementNS(NS, tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    if (text !== undefined) made.textContent = text;
    return parent.appendChild(made);
  }

  // Round numbers between the ends of an axis, at most `most` of them.
  function ticksOf(axis, most) {
    if (axis.log) {
      const decades = [...Array(16).keys()].map((k) => k - 12);
      const within = (factors) => decades.flatMap((k) => factors.map((f) => f * 10 ** k))
        .filter((v) => v >= axis.min * 0.999 && v <= axis.max * 1.001);
      const fine = within([1, 2, 5]);
      return fine.length <= most ? fine : within([1]);
    }
    const rough = (axis.max - axis.min) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough * 0.999);
    const ticks = [];
    for (let k = Math.ceil(axis.min / step - 1e-9); k * step <= axis.max * (1 + 1e-9); k += 1) ticks.push(k * step);
    return ticks;
  }

  // The value at x[i] holds from x[i - 1] on, as certified accuracy at a radius does.
  const steps = (x, y) => x.map((v, i) => (i ? `V${y[i]}H${v}` : `M${v},${y[i]}`)).join("");
  const back = (x, y) => x.map((v, i) => `L${v},${y[i]}` + (i ? `H${x[i - 1]}` : "")).reverse().join("");
  // Bins between the edges x, down to the floor where they are empty.
  const bins = (x, y, floor) => `M${x[0]},${floor}${y.map((v, i) => `V${v}H${x[i + 1]}`).join("")}V${floor}`;

  function drawSeries(plot, one, X, Y, floor) {
    const x = one.x.map(X), y = one.y.map(Y), low = one.low && one.low.map(Y);
    if (one.kind === "bins") add(plot, "path", { class: `band f${one.colour}`, d: `${bins(x, y, floor)}Z` });
    if (one.kind === "steps" && low) add(plot, "path", { class: `band f${one.colour}`, d: `${steps(x, y)}${back(x, low)}Z` });
    const line = { steps, line: (a, b) => `M${a.map((v, i) => `${v},${b[i]}`).join("L")}`, bins: (a, b) => bins(a, b, floor) }[one.kind];
    if (line && x.length) add(plot, "path", { class: `line s${one.colour} d${one.dash}`, d: line(x, y) });
    if (one.mark) {
      x.forEach((v, i) => {
        if (low) add(plot, "path", { class: `line s${one.colour}`, d: `M${v},${y[i]}V${low[i]}M${v - 5},${low[i]}h10` });
        const mark = add(plot, "path", { class: `mark f${one.colour}`, d: one.mark, transform: `translate(${v - 17} ${y[i] - 5})` });
        add(mark, "title", {}, `${words(one.x[i])}: ${words(one.y[i])}`);
      });
    }
  }

  // A line that follows the pointer, and what `tell` says of its place: lines of text.
  function follow(box, svg, frame, X, back, tell) {
    const line = add(svg, "path", { class: "pointer", d: "" }), tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    box.append(tip);
    const hide = () => { tip.hidden = true; line.setAttribute("d", ""); };
    const show = (event) => {
      const place = event.clientX - svg.getBoundingClientRect().left;
      if (place < frame.left || place > frame.right) { hide(); return; }
      line.setAttribute("d", `M${place},${frame.top}V${frame.bottom}`);
      tip.replaceChildren(...tell(back(place)).map((text) => Object.assign(document.createElement("div"), { textContent: text })));
      tip.hidden = false;
      const right = place > (frame.left + frame.right) / 2;
      tip.style.left = right ? "auto" : `${place + 12}px`;
      tip.style.right = right ? `${svg.clientWidth - place + 12}px` : "auto";
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  }

  // spec: x and y {label, min, max, log}; series [{kind, x, y, low, colour, dash, mark}]; levels [{y, colour}]; tell(x).
  return function drawChart(box, spec) {
    const width = box.clientWidth, height = box.clientHeight;
    if (!width) return;
    box.replaceChildren();
    const svg = add(box, "svg", { width, height, viewBox: `0 0 ${width} ${height}` });
    const frame = { left: 62, right: width - 14, top: 10, bottom: height - 46 };
    const scale = (axis, from, to) => {
      const of = axis.log ? Math.log10 : (v) => v, low = of(axis.min), high = of(axis.max);
      return (v) => Math.round(100 * (from + ((of(Math.max(v, axis.log ? axis.min : v)) - low) / (high - low)) * (to - from))) / 100;
    };
    const X = scale(spec.x, frame.left, frame.right), Y = scale(spec.y, frame.bottom, frame.top);
    ticksOf(spec.y, Math.max(3, Math.floor(height / 45))).forEach((v) => {
      add(svg, "path", { class: "grid", d: `M${frame.left},${Y(v)}H${frame.right}` });
      add(svg, "text", { class: "tick", x: frame.left - 8, y: Y(v) + 4, "text-anchor": "end" }, words(v));
    });
    ticksOf(spec.x, Math.max(3, Math.floor(width / 75))).forEach((v) => {
      add(svg, "path", { class: "grid", d: `M${X(v)},${frame.top}V${frame.bottom}` });
      add(svg, "text", { class: "tick", x: X(v), y: frame.bottom + 18, "text-anchor": "middle" }, words(v));
    });
    add(svg, "text", { x: (frame.left + frame.right) / 2, y: height - 6, "text-anchor": "middle" }, spec.x.label);
    add(svg, "text", { transform: `translate(14 ${(frame.top + frame.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, spec.y.label);
    const plot = add(svg, "g", { class: "plot" });
    (spec.levels || []).forEach((one) => add(plot, "path", { class: `level s${one.colour}`, d: `M${frame.left},${Y(one.y)}H${frame.right}` }));
    spec.series.forEach((one) => drawSeries(plot, one, X, Y, frame.bottom));
    const value = (place) => spec.x.min + ((place - frame.left) / (frame.right - frame.left)) * (spec.x.max - spec.x.min);
    if (spec.tell) follow(box, svg, frame, X, value, spec.tell);
  };
})();
