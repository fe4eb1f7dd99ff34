// Bars with intervals, curves with a cross-hair, and cognitive maps, as SVG.

function ticks(low, high, wanted) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step)
    found.push(Number(value.toPrecision(12)));
  return found;
}

const BAR = 240;

// One row of the table of scores: a bar and its interval for each column, on an axis of 0 to `top`.
function bars(row, columns, top) {
  const thick = columns.length > 3 ? 5 : 8,
    gap = 3;
  const height = columns.length * (thick + gap) + 7;
  const at = (value) => (Math.min(Math.max(value, 0), top) / top) * BAR;
  const drawing = svg("svg", {
    class: "bars",
    width: BAR + 8,
    height,
    viewBox: `-2 0 ${BAR + 8} ${height}`,
    "aria-hidden": "true",
  });
  for (let part = 0; part <= 4; part++) {
    drawing.append(
      svg("line", { x1: (part / 4) * BAR, x2: (part / 4) * BAR, y1: 0, y2: height, class: part ? "grid" : "axis" }),
    );
  }
  row.cells.forEach((cell, place) => {
    if (!cell) return;
    const y = 5 + place * (thick + gap);
    drawing.append(
      svg("rect", { x: 0, y, width: Math.max(at(cell.value), 1), height: thick, fill: colour(place), rx: 1.5 }),
    );
    if (cell.low !== null) {
      const middle = y + thick / 2;
      drawing.append(
        svg("line", { x1: at(cell.low), x2: at(cell.high), y1: middle, y2: middle, class: "whisker halo" }),
      );
      drawing.append(svg("line", { x1: at(cell.low), x2: at(cell.high), y1: middle, y2: middle, class: "whisker" }));
    }
  });
  hover(drawing, () => [
    row.label,
    ...row.cells.flatMap((cell, place) => (cell ? [`${columns[place].label}: ${said(row, cell)}`] : [])),
  ]);
  return drawing;
}

function said(row, cell) {
  const unit = row.share
    ? (value) => `${percent(value)} %`
    : (value) => value.toFixed(row.name === "completion/tokens" ? 1 : 3);
  const range =
    cell.low === null ? `no interval (${cell.why})` : `95 % interval ${unit(cell.low)} to ${unit(cell.high)}`;
  return `${unit(cell.value)}, ${range}, ${count(cell.questions, "question")}`;
}

function smoothed(points) {
  const wide = Math.max(1, Math.floor(points.length / 10)) | 1,
    half = (wide - 1) / 2;
  return points.map(([step], place) => {
    const near = points.slice(Math.max(0, place - half), place + half + 1);
    return [step, near.reduce((sum, point) => sum + point[1], 0) / near.length];
  });
}

const nearest = (points, step) =>
  points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best), points[0]);
const short = (value) =>
  Math.abs(value) >= 1e6 || (value && Math.abs(value) < 0.001)
    ? value.toExponential(1)
    : Math.abs(value) >= 1000
      ? Math.round(value).toLocaleString("en")
      : Number(value.toPrecision(3)).toString();

// Series of {label, points, colour}, ends where there are intervals, and each where points are the mean of several
// curves, over training steps.
function curve(title, series) {
  const width = 350,
    height = 204,
    left = 46,
    right = 12,
    top = 10,
    bottom = 40;
  const all = series.flatMap((one) => [one.points, ...(one.each || [])].flat());
  let [x0, x1] = [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
  const ends = series.flatMap((one) => (one.ends || []).flatMap((end) => end.slice(1)));
  const heights = [...all.map((p) => p[1]), ...ends];
  let [y0, y1] = [Math.min(...heights), Math.max(...heights)];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  if (y0 === y1) [y0, y1] = [y0 - (Math.abs(y0) * 0.1 || 0.5), y1 + (Math.abs(y1) * 0.1 || 0.5)];
  const margin = (y1 - y0) * 0.06;
  [y0, y1] = [y0 - margin, y1 + margin];
  const px = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
  const py = (y) => top + (1 - (y - y0) / (y1 - y0)) * (height - top - bottom);
  const drawing = svg("svg", {
    class: "curve",
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `${title} over training steps`,
  });
  for (const y of ticks(y0, y1, 4)) {
    drawing.append(svg("line", { x1: left, x2: width - right, y1: py(y), y2: py(y), class: "grid" }));
    drawing.append(svg("text", { x: left - 6, y: py(y) + 4, class: "tick", "text-anchor": "end" }, short(y)));
  }
  for (const x of ticks(x0, x1, 5).filter(Number.isInteger)) {
    drawing.append(
      svg(
        "text",
        { x: px(x), y: height - bottom + 16, class: "tick", "text-anchor": "middle" },
        x.toLocaleString("en"),
      ),
    );
  }
  drawing.append(
    svg(
      "text",
      { x: (left + width - right) / 2, y: height - 6, class: "tick", "text-anchor": "middle" },
      "training step",
    ),
  );
  const line = (points) =>
    points.map(([x, y], place) => `${place ? "L" : "M"}${px(x).toFixed(1)},${py(y).toFixed(1)}`).join("");
  for (const one of series) {
    const soft = smoothed(one.points);
    for (const [x, low, high] of one.ends || [])
      drawing.append(
        svg("line", { x1: px(x), x2: px(x), y1: py(low), y2: py(high), class: "raw", stroke: one.colour }),
      );
    const thin = one.each || (one.points.length >= 20 ? [one.points] : []);
    drawing.append(...thin.map((points) => svg("path", { d: line(points), class: "raw", stroke: one.colour })));
    if (one.points.length === 1)
      drawing.append(svg("circle", { cx: px(one.points[0][0]), cy: py(one.points[0][1]), r: 3, fill: one.colour }));
    drawing.append(
      svg("path", { d: line(one.points.length >= 20 ? soft : one.points), class: "soft", stroke: one.colour }),
    );
  }
  const cross = svg("line", { y1: top, y2: height - bottom, class: "cross", visibility: "hidden" });
  drawing.append(cross);
  const step = (event) => {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    return x0 + ((x - left) / (width - left - right)) * (x1 - x0);
  };
  hover(drawing, (event) => {
    const near = nearest(series[0].points, step(event));
    cross.setAttribute("x1", px(near[0]));
    cross.setAttribute("x2", px(near[0]));
    cross.setAttribute("visibility", "visible");
    const range = (one) =>
      one.ends && one.ends.length ? ` (${nearest(one.ends, near[0]).slice(1).map(short).join(" to ")})` : "";
    const values = series.map(
      (one) => `${series.length > 1 ? `${one.label}: ` : ""}${short(nearest(one.points, near[0])[1])}${range(one)}`,
    );
    return [`step ${Math.round(near[0]).toLocaleString("en")}`, ...values];
  });
  drawing.addEventListener("mouseleave", () => cross.setAttribute("visibility", "hidden"));
  return el("figure", { class: "panel" }, el("figcaption", {}, title), drawing);
}

// The closest pair first, one to one: as the map reward matches them.
function pairs(predicted, truth) {
  const all = predicted.flatMap((p, i) => truth.map((t, j) => [Math.hypot(p[0] - t[0], p[1] - t[1]), i, j]));
  const found = [],
    left = new Set(predicted.keys()),
    right = new Set(truth.keys());
  for (const [, i, j] of all.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2])) {
    if (left.delete(i)) {
      if (right.delete(j)) found.push([i, j]);
      else left.add(i);
    }
  }
  return found;
}

const SHAPES = [
  (x, y, r, p) => svg("circle", { cx: x, cy: y, r, ...p }),
  (x, y, r, p) => svg("rect", { x: x - r * 0.9, y: y - r * 0.9, width: r * 1.8, height: r * 1.8, ...p }),
  (x, y, r, p) =>
    svg("path", { d: `M${x},${y - r * 1.2}L${x + r * 1.2},${y}L${x},${y + r * 1.2}L${x - r * 1.2},${y}Z`, ...p }),
  (x, y, r, p) =>
    svg("path", { d: `M${x},${y - r * 1.2}L${x + r * 1.1},${y + r * 0.9}L${x - r * 1.1},${y + r * 0.9}Z`, ...p }),
  (x, y, r, p) =>
    svg("path", { d: `M${x},${y + r * 1.2}L${x + r * 1.1},${y - r * 0.9}L${x - r * 1.1},${y - r * 0.9}Z`, ...p }),
];

// True centres filled, predicted ones hollow around them, a line from each to the one that it is matched with.
function gridMap(truth, predicted, size = 230) {
  const cell = size / 10.4,
    at = (x) => (x + 0.7) * cell,
    up = (y) => size - (y + 0.7) * cell;
  const drawing = svg("svg", {
    class: "map",
    width: size,
    height: size,
    viewBox: `0 0 ${size} ${size}`,
    role: "img",
    "aria-label": "cognitive map",
  });
  for (let n = 0; n < 10; n++) {
    drawing.append(svg("line", { x1: at(n), x2: at(n), y1: up(-0.5), y2: up(9.5), class: "grid" }));
    drawing.append(svg("line", { x1: at(-0.5), x2: at(9.5), y1: up(n), y2: up(n), class: "grid" }));
  }
  const names = [...new Set([...Object.keys(truth || {}), ...Object.keys(predicted || {})])].sort();
  const palette = index.colours.slice(1, 7);
  const legend = el("ul", { class: "legend" });
  const taken = new Map();
  const spread = ([x, y]) => {
    // marks on one point stand around it
    const key = `${Math.round(x * 4)},${Math.round(y * 4)}`,
      times = taken.get(key) || 0;
    taken.set(key, times + 1);
    return times ? [x + 0.22 * Math.cos(2.4 * times), y + 0.22 * Math.sin(2.4 * times)] : [x, y];
  };
  const lines = svg("g"),
    hollow = svg("g"),
    solid = svg("g");
  names.forEach((name, place) => {
    const tint = palette[place % palette.length],
      shape = SHAPES[place % SHAPES.length];
    const own = (grid) => (grid && Object.hasOwn(grid, name) ? grid[name] : []);
    const there = own(truth),
      drawn = own(predicted);
    const trueAt = there.map(spread);
    for (const [i, j] of pairs(drawn, there)) {
      lines.append(
        svg("line", {
          x1: at(drawn[i][0]),
          y1: up(drawn[i][1]),
          x2: at(trueAt[j][0]),
          y2: up(trueAt[j][1]),
          stroke: tint,
          "stroke-width": 1.2,
        }),
      );
    }
    for (const [x, y] of drawn)
      hollow.append(
        shape(at(x), up(y), cell * 0.36, {
          class: "hollow",
          stroke: tint,
          "stroke-width": 1.7,
          tip: () => [`${name}, predicted at ${x}, ${y}`],
        }),
      );
    trueAt.forEach(([x, y], j) =>
      solid.append(
        shape(at(x), up(y), cell * 0.22, { fill: tint, tip: () => [`${name}, truly at ${there[j].join(", ")}`] }),
      ),
    );
    legend.append(
      el("li", {}, svg("svg", { width: 14, height: 14, viewBox: "0 0 14 14" }, shape(7, 7, 4.5, { fill: tint })), name),
    );
  });
  drawing.append(lines, hollow, solid);
  const key = truth ? ["● true", "○ predicted"] : ["as the completion", "draws it"];
  return el(
    "div",
    { class: "mapbox" },
    drawing,
    el("div", {}, legend, el("p", { class: "quiet" }, key[0], el("br"), key[1])),
  );
}
