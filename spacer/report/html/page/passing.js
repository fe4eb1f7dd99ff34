// How often questions were answered rightly that were sampled several completions of: runs of stage=generate.

const sampled = () => index.runs.filter((run) => run.pass_rates.length);

const ENDINGS = [
  ["never", "never right", "elsewhere"],
  ["sometimes", "sometimes right", "middling"],
  ["always", "always right", "always"],
];

// The questions of a type, by how many of their completions are right.
function thirds(row) {
  const all = row.cell.questions;
  const drawing = svg("svg", {
    class: "bars",
    width: BAR + 8,
    height: 16,
    viewBox: `-2 0 ${BAR + 8} 16`,
    "aria-hidden": "true",
  });
  let x = 0;
  for (const [name, , shade] of ENDINGS) {
    const width = (BAR * row[name]) / all;
    if (width) drawing.append(svg("rect", { x, y: 4, width, height: 8, class: shade }));
    x += width;
  }
  hover(drawing, () => [
    row.label,
    ...ENDINGS.map(([name, words]) => `${words}: ${count(row[name], "question")}, ${percent(row[name] / all)} %`),
  ]);
  return drawing;
}

function passing() {
  return sampled().map((run) => {
    const [all] = run.pass_rates;
    const share = (number) => `${percent(number / all.cell.questions)}`;
    const told = [
      ["Right completions", percent(all.cell.value), passRange(all.cell)],
      ["Groups that teach", share(all.teaching), count(all.teaching, "question")],
      ["Never right", share(all.never), count(all.never, "question")],
      ["Always right", share(all.always), count(all.always, "question")],
    ];
    return el(
      "section",
      {},
      el(
        "h2",
        {},
        index.runs.length > 1 ? `${run.letter} ` : "",
        "How often its completions are right",
        index.runs.length > 1 ? el("span", { class: "quiet" }, ` ${run.name}`) : null,
      ),
      el(
        "div",
        { class: "cards" },
        ...told.map(([name, value, under]) =>
          el(
            "div",
            { class: "card" },
            el("h3", {}, name),
            el("p", { class: "big" }, value, el("span", { class: "unit" }, "%")),
            el("p", { class: "quiet" }, under),
          ),
        ),
      ),
      el("h3", { class: "over" }, "By question type"),
      el(
        "ul",
        { class: "legend wide" },
        ...ENDINGS.map(([, words, shade]) => el("li", {}, el("span", { class: `swatch ${shade}` }), words)),
      ),
      el("div", { class: "scroll" }, passTable(run.pass_rates)),
      el(
        "p",
        { class: "quiet" },
        "Right: the share of a question's completions that are right, in per cent, as the mean over questions; the 95 % interval resamples scenes. A group, which is the completions of a question, teaches if its rewards differ: GRPO learns from no other.",
      ),
    );
  });
}

const passRange = (cell) =>
  cell.low === null ? `no interval (${cell.why})` : `95 % interval ${percent(cell.low)} to ${percent(cell.high)}`;

function passTable(rows) {
  const heads = ["right", "never right", "sometimes", "always right", "groups that teach", "N"];
  const cell = (place, ...inside) => el("td", { class: "number", "data-label": heads[place] }, ...inside);
  return el(
    "table",
    { class: "scores" },
    headOf(["", ""], heads),
    el(
      "tbody",
      {},
      ...rows.map((row) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, row.name === "all" ? el("strong", {}, row.label) : row.label),
          el("td", { class: "plot" }, thirds(row)),
          cell(
            0,
            percent(row.cell.value),
            el(
              "span",
              { class: "range" },
              row.cell.low === null ? row.cell.why : `${percent(row.cell.low)} – ${percent(row.cell.high)}`,
            ),
          ),
          ...ENDINGS.map(([name], place) => cell(1 + place, row[name].toLocaleString("en"))),
          cell(4, `${percent(row.teaching / row.cell.questions)} %`),
          cell(5, row.cell.questions.toLocaleString("en")),
        ),
      ),
    ),
  );
}
