// What the video adds to the scores: the questions under each control beside the unchanged ones.

function added(subject) {
  const places = subject.adds.flatMap((entries, place) => (entries.length ? [place] : []));
  const controls = new Map(subject.adds.flat().map((entry) => [entry.control, entry.label]));
  const entry = (place, control) => subject.adds[place].find((each) => each.control === control);
  const cards = [...controls].map(([control, label]) =>
    el(
      "div",
      { class: "card" },
      el("h3", {}, `to ${label}`),
      index.runs.length > 1
        ? el("ul", { class: "each" }, ...places.map((place) => addedLine(subject, place, entry(place, control))))
        : addedAlone(entry(places[0], control).metrics[0]),
    ),
  );
  const leading = subject.adds[places[0]][0].metrics[0].label;
  return el(
    "section",
    { id: "adds" },
    el("h2", {}, "What the video adds"),
    el("div", { class: "cards" }, ...cards),
    el(
      "p",
      { class: "quiet" },
      `Points of ${leading}, in per cent, with the 95 % interval of the difference, question by question.`,
    ),
    el("details", {}, el("summary", {}, "By question type"), addedTable(subject, places, controls, entry)),
  );
}

const points = (value) => signed(100 * value, 1);
const addedRange = (change) =>
  change.low === null ? `no interval (${change.why})` : `[${points(change.low)}, ${points(change.high)}]`;
const rising = (change) => (sure(change) ? (change.delta > 0 ? "better" : "worse") : "quiet");

function addedAlone({ cell, change }) {
  return [
    el("p", { class: "big" }, points(change.delta), el("span", { class: "unit" }, "points")),
    el(
      "p",
      {},
      el("span", { class: "quiet" }, `${percent(cell.without)} → ${percent(cell.value)} % `),
      el("span", { class: rising(change) }, addedRange(change)),
    ),
  ];
}

function addedLine(subject, place, entry) {
  return el(
    "li",
    {},
    el("span", { class: "swatch", style: { background: colour(place) } }),
    el("span", { class: "quiet" }, subject.columns[place].label),
    entry
      ? el(
          "span",
          { class: "number end" },
          el("strong", {}, points(entry.metrics[0].change.delta)),
          el("span", { class: "range" }, addedRange(entry.metrics[0].change)),
        )
      : el("strong", { class: "end" }, "–"),
  );
}

function addedTable(subject, places, controls, entry) {
  const columns = places.flatMap((place) =>
    [...controls].map(([control, label]) => ({
      label: index.runs.length > 1 ? `${subject.columns[place].label}: to ${label}` : `to ${label}`,
      metrics: new Map((entry(place, control)?.metrics || []).map((each) => [each.name, each])),
    })),
  );
  const names = new Map(columns.flatMap((column) => [...column.metrics].map(([name, each]) => [name, each.label])));
  const row = ([name, label]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, label),
      ...columns.map((column) => {
        const each = column.metrics.get(name);
        return el(
          "td",
          { class: `number ${each ? rising(each.change) : ""}`, "data-label": column.label },
          each
            ? [
                points(each.change.delta),
                sure(each.change) ? " *" : "",
                el("span", { class: "range" }, addedRange(each.change)),
              ]
            : "–",
        );
      }),
    );
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "scores" },
      headOf(
        [""],
        columns.map((column) => column.label),
      ),
      el("tbody", {}, ...[...names].map(row)),
    ),
  );
}
