// Scores with intervals, what they are held against, and where it fails.

function overview() {
  const subject = index.subjects[state.subject];
  const view = el("div", { class: "page" }, ...notes());
  if (!subject && !sampled().length)
    return fill(view, {}, [el("p", { class: "quiet" }, "These runs answered no questions: see Training.")]);
  if (!subject) return fill(view, {}, passing());
  if (index.sweep) return fill(view, {}, sweepOverview(subject));
  if (subject.adds.some((entries) => entries.length)) view.append(added(subject));
  view.append(headline(subject), scores(subject));
  if (subject.published.length) view.append(published(subject));
  view.append(...passing(), failures(subject));
  return view;
}

function notes() {
  const told = index.runs.flatMap((run) =>
    run.notes.map((note) => (index.runs.length > 1 ? `${run.letter}: ${note}` : note)),
  );
  const all = [
    ...told,
    ...(index.subjects[state.subject]?.notes || []),
    ...index.left_out.map((what) => `Left out of this page: ${what}`),
  ];
  return all.length ? [el("ul", { class: "notes" }, ...all.map((note) => el("li", {}, note)))] : [];
}

const LEADING = ["overall", "questions", "reward/answer", "reward/total", "map/quality", "map/drawn"];

function headline(subject) {
  const rows = LEADING.flatMap((name) => subject.metrics.filter((row) => row.name === name)).slice(0, 4);
  return el("section", { class: "cards" }, ...rows.map((row) => card(subject, row)));
}

const NAMES = {
  overall: "Overall",
  "reward/answer": "Answer accuracy",
  "reward/total": "Total reward",
  "map/quality": "Map score",
  "map/drawn": "Completions with a map",
};
const valueOf = (row, value) => (row.share ? percent(value) : value.toFixed(row.name === "completion/tokens" ? 1 : 3));
const changeOf = (row, value) =>
  row.share ? signed(100 * value, 1) : signed(value, row.name === "completion/tokens" ? 1 : 3);
const nameOf = (row) => NAMES[row.name] || row.label[0].toUpperCase() + row.label.slice(1);
const rangeOf = (row, { low, high }) => `${valueOf(row, low)} – ${valueOf(row, high)}`;
const sure = (change) => change && change.low !== null && (change.low > 0 || change.high < 0);

// The places of the runs' last columns.
const lasts = (subject) =>
  subject.columns
    .map((column, place) => place)
    .filter((place) => subject.columns[place].run !== subject.columns[place + 1]?.run);

// What tells a change for the better from one for the worse; nothing where more is not better.
const judged = (row, change) => (sure(change) && row.better ? (change.delta > 0 ? "better" : "worse") : "");

function card(subject, row) {
  const last = row.cells.length - 1,
    cell = row.cells[last],
    change = row.changes[last];
  const box = el(
    "div",
    {
      class: "card",
      tip: () =>
        row.cells.flatMap((each, place) => (each ? [`${subject.columns[place].label}: ${said(row, each)}`] : [])),
    },
    el("h3", {}, nameOf(row)),
  );
  const unit = row.share ? el("span", { class: "unit" }, "%") : null;
  const ends = lasts(subject);
  if (ends.length > 1) {
    return fill(box, {}, [
      el(
        "ul",
        { class: "each" },
        ...ends.map((place) =>
          el(
            "li",
            {},
            el("span", { class: "swatch", style: { background: colour(place) } }),
            el("span", { class: "quiet" }, subject.columns[place].label),
            el("strong", {}, row.cells[place] ? [valueOf(row, row.cells[place].value), row.share ? " %" : ""] : "–"),
          ),
        ),
      ),
    ]);
  }
  if (!cell) return fill(box, {}, [el("p", { class: "big" }, "–")]);
  const first = last > 0 && row.cells[0];
  box.append(
    el(
      "p",
      { class: "big" },
      first ? [el("span", { class: "from" }, valueOf(row, first.value)), el("span", { class: "arrow" }, "→")] : null,
      valueOf(row, cell.value),
      unit,
    ),
  );
  if (change) {
    const range =
      change.low === null
        ? `, no interval (${change.why})`
        : ` [${changeOf(row, change.low)}, ${changeOf(row, change.high)}]`;
    box.append(el("p", { class: judged(row, change) || "quiet" }, changeOf(row, change.delta), range));
  } else if (cell.low !== null)
    box.append(el("p", { class: "quiet" }, `95 % interval ${valueOf(row, cell.low)} to ${valueOf(row, cell.high)}`));
  else box.append(el("p", { class: "quiet" }, `no interval (${cell.why})`));
  return box;
}

function legend(subject) {
  return el(
    "ul",
    { class: "legend wide" },
    ...subject.columns.map((column, place) => {
      const run = index.runs[column.run];
      return el(
        "li",
        { title: run.folder },
        el("span", { class: "swatch", style: { background: colour(place) } }),
        column.label,
        index.runs.length > 1 ? el("span", { class: "quiet" }, ` ${run.name}`) : null,
        subject.protocols[place] ? el("span", { class: "quiet" }, ` protocol ${subject.protocols[place]}`) : null,
      );
    }),
  );
}

function scores(subject) {
  const columns = subject.columns,
    body = el("tbody");
  const compared = subject.against.flatMap((base, place) =>
    base === null
      ? []
      : [[place, index.runs.length > 1 ? `${columns[place].label} − ${columns[base].label}` : "change"]],
  );
  let section = null;
  for (const row of subject.metrics) {
    if (row.section !== section) {
      section = row.section;
      body.append(
        el(
          "tr",
          { class: "section" },
          el("th", { colspan: 3 + columns.length + compared.length, scope: "rowgroup" }, section),
        ),
      );
    }
    const top = row.share
      ? 1
      : Math.max(1e-9, ...row.cells.map((cell) => (cell ? (cell.high ?? cell.value) : 0))) * 1.05;
    body.append(
      el(
        "tr",
        {},
        el("th", { scope: "row" }, row.label),
        el("td", { class: "plot" }, bars(row, columns, top)),
        ...row.cells.map((cell, place) =>
          el(
            "td",
            {
              class: "number",
              "data-label": columns[place].label,
              tip: cell ? () => [`${columns[place].label}: ${said(row, cell)}`] : null,
            },
            cell ? valueOf(row, cell.value) : "–",
            cell ? el("span", { class: "range" }, cell.low === null ? cell.why : rangeOf(row, cell)) : null,
          ),
        ),
        ...compared
          .map(([place, label]) => [row.changes[place], label])
          .map(([change, label]) =>
            el(
              "td",
              { class: `number change ${judged(row, change)}`, "data-label": label },
              change
                ? [
                    changeOf(row, change.delta),
                    sure(change) ? " *" : "",
                    el(
                      "span",
                      { class: "range" },
                      change.low === null ? change.why : `${changeOf(row, change.low)}, ${changeOf(row, change.high)}`,
                    ),
                  ]
                : "–",
            ),
          ),
        el(
          "td",
          { class: "number quiet", "data-label": "N" },
          (row.cells.find(Boolean)?.questions ?? 0).toLocaleString("en"),
        ),
      ),
    );
  }
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, ""),
    el("th", { scope: "col" }, ""),
    ...columns.map((column) => el("th", { scope: "col", class: "number" }, column.label)),
    ...compared.map(([, label]) => el("th", { scope: "col", class: "number" }, label)),
    el("th", { scope: "col", class: "number" }, "N"),
  );
  return el(
    "section",
    {},
    el("h2", {}, "Scores"),
    legend(subject),
    el("div", { class: "scroll" }, el("table", { class: "scores" }, el("thead", {}, head), body)),
    el(
      "p",
      { class: "quiet" },
      "Shares in per cent. Intervals are 95 % and resample what questions share (their video); of fewer than ten such clusters there is none. Bars of what is no share have a scale of their own. ",
      compared.length ? "* the interval of the change, question by question, excludes 0." : "",
    ),
  );
}

function published(subject) {
  const overall = subject.metrics.find((row) => row.name === "overall");
  const own = subject.columns
    .map((column, place) => [column.label, overall?.cells[place], place])
    .filter(([, cell]) => cell);
  const all = [
    ...own.map(([label, cell, place]) => ({ model: label, value: 100 * cell.value, note: "here", source: "", place })),
    ...subject.published,
  ];
  return el(
    "section",
    {},
    el("h2", {}, "Beside published scores"),
    el(
      "table",
      { class: "published" },
      el(
        "tbody",
        {},
        ...all
          .sort((a, b) => b.value - a.value)
          .map((entry) =>
            el(
              "tr",
              { class: entry.note === "here" ? "own" : "" },
              el("th", { scope: "row" }, entry.model),
              el(
                "td",
                { class: "plot" },
                svg(
                  "svg",
                  { class: "bars", width: BAR + 8, height: 16, viewBox: `-2 0 ${BAR + 8} 16`, "aria-hidden": "true" },
                  svg("rect", {
                    x: 0,
                    y: 4,
                    width: (BAR * entry.value) / 100,
                    height: 8,
                    rx: 1.5,
                    ...(entry.place === undefined ? { class: "elsewhere" } : { fill: colour(entry.place) }),
                  }),
                ),
              ),
              el("td", { class: "number" }, entry.value.toFixed(1)),
              el("td", { class: "quiet" }, [entry.note, entry.source].filter(Boolean).join(" · ")),
            ),
          ),
      ),
    ),
    el(
      "p",
      { class: "quiet" },
      "Overall, in per cent. Published models differ most by frames, pixels, prompts and lengths: what this run used is under Settings.",
    ),
  );
}

// Means of the questions that share a label, worst first.
function groups(column, labels, names) {
  const { score } = index.subjects[state.subject].answers[column];
  const found = new Map();
  labels.forEach((label, place) => {
    if (score[place] === null) return;
    const entry = found.get(label) || { label, name: names[label], sum: 0, count: 0 };
    entry.sum += score[place];
    entry.count += 1;
    found.set(label, entry);
  });
  return [...found.values()].sort((a, b) => a.sum / a.count - b.sum / b.count || b.count - a.count);
}

function failures(subject, column = subject.columns.length - 1) {
  const base = subject.against[column] ?? 0;
  const tally = { right: 0, wrong: 0, unread: 0, error: 0, absent: 0 };
  subject.id.forEach((_, place) => {
    tally[verdict(state.subject, column, place)] += 1;
  });
  const go = (filters) => () => openQuestions({ y: column, x: base, ...filters });
  const link = (text, number, filters) =>
    el(
      "li",
      {},
      el(
        "button",
        { class: "row", on: { click: go(filters) } },
        el("span", {}, text),
        el("span", { class: "number" }, number),
      ),
    );
  const group = (title, entries, filter, least) => {
    const shown = entries.filter((entry) => entry.count >= least).slice(0, 8);
    return shown.length
      ? el(
          "div",
          {},
          el("h3", {}, title),
          el(
            "ul",
            { class: "links" },
            ...shown.map((entry) =>
              link(entry.name, `${percent(entry.sum / entry.count, 0)} % of ${entry.count}`, filter(entry)),
            ),
          ),
        )
      : null;
  };
  const disagree =
    column !== base
      ? el(
          "div",
          {},
          el("h3", {}, "What changed"),
          el(
            "ul",
            { class: "links" },
            ...[
              ["better", `${subject.columns[column].label} right, ${subject.columns[base].label} wrong`],
              ["worse", `${subject.columns[base].label} right, ${subject.columns[column].label} wrong`],
              ["both wrong", "both wrong"],
              ["both right", "both right"],
            ].map(([show, text]) => link(text, matching(show, base, column), { show })),
          ),
        )
      : null;
  const faults = index.runs.flatMap((run) =>
    run.faults.map((fault) => `${fault.kind || "fault"}: ${fault.where || ""} ${fault.detail || ""}`),
  );
  return el(
    "section",
    {},
    el("h2", {}, "Where it fails", el("span", { class: "quiet" }, ` ${subject.columns[column].label}`)),
    el(
      "div",
      { class: "fails" },
      el(
        "div",
        {},
        el("h3", {}, "Answers"),
        el(
          "ul",
          { class: "links" },
          link("wrong", tally.wrong, { show: "wrong" }),
          link("no answer could be read", tally.unread, { show: "unread" }),
          link("could not be asked", tally.error, { show: "error" }),
          link("right", tally.right, { show: "right" }),
        ),
      ),
      disagree,
      group(
        "Worst tasks",
        groups(
          column,
          subject.task,
          subject.tasks.map((task) => task.label),
        ),
        (entry) => ({ task: String(entry.label) }),
        1,
      ),
      group(
        "Worst videos",
        groups(column, subject.cluster, subject.clusters),
        (entry) => ({ cluster: String(entry.label) }),
        2,
      ),
    ),
    faults.length
      ? el(
          "details",
          {},
          el(
            "summary",
            {},
            count(
              index.runs.reduce((sum, run) => sum + run.fault_count, 0),
              "sample",
            ),
            " could not be read while training",
          ),
          el("ul", { class: "plain" }, ...faults.slice(0, 500).map((line) => el("li", {}, line))),
        )
      : null,
    el(
      "p",
      { class: "quiet" },
      `An answer is told as right from a score of ${index.right} on; numbers earn parts of a score by how near they are.`,
    ),
  );
}

function matching(show, x, y) {
  let found = 0;
  index.subjects[state.subject].id.forEach((_, place) => {
    if (passes(show, place, x, y)) found += 1;
  });
  return found;
}
