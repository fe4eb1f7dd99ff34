// A sweep as one page: what the video adds by setting, its jobs, and every metric by setting.

// Of a run's answers to a subject: the place of their column, -1 if there is none.
const columnOf = (subject, run) => subject.columns.findIndex((column) => column.run === run);
const settingOf = (run) => index.sweep.settings.findIndex((setting) => setting.runs.includes(run));

// The values of runs as a reader compares settings: one run's with its interval, several seeds' mean with their range.
function overSeeds(found, value) {
  const values = found.map(value);
  return {
    mean: counted(values),
    low: Math.min(...values),
    high: Math.max(...values),
    seeds: values.length,
  };
}

const tint = (setting) => colour(setting + 1); // the first two are shades of one colour, for before and after
const swatch = (tint) => el("span", { class: "swatch", style: { background: tint } });

function sweepOverview(subject) {
  const best = index.sweep.jobs.map((job) => (job.run === null ? -1 : columnOf(subject, job.run)));
  return [
    subject.adds.some((entries) => entries.length) ? sweepAdded(subject) : null,
    sweepJobs(subject),
    index.sweep.settings.length < index.runs.length ? sweepSettings(subject) : null,
    failures(
      subject,
      best.find((place) => place >= 0),
    ),
  ];
}

function sweepAdded(subject) {
  const controls = new Map(subject.adds.flat().map((entry) => [entry.control, entry.label]));
  const line = (control) => (setting, place) => {
    const found = setting.runs
      .map((run) => (subject.adds[columnOf(subject, run)] || []).find((entry) => entry.control === control))
      .filter(Boolean)
      .map((entry) => entry.metrics[0]);
    const { mean, low, high, seeds } = overSeeds(found, (entry) => entry.change.delta);
    return el(
      "li",
      {},
      swatch(tint(place)),
      el("span", { class: "quiet" }, setting.label),
      el(
        "span",
        { class: "number end" },
        el("strong", {}, mean === null ? "–" : points(mean)),
        mean === null
          ? null
          : el(
              "span",
              { class: "range" },
              seeds > 1 ? `${points(low)} to ${points(high)} over ${seeds} seeds` : addedRange(found[0].change),
            ),
      ),
    );
  };
  return el(
    "section",
    { id: "adds" },
    el("h2", {}, "What the video adds"),
    el(
      "div",
      { class: "cards" },
      ...[...controls].map(([control, label]) =>
        el(
          "div",
          { class: "card" },
          el("h3", {}, `to ${label}`),
          el("ul", { class: "each" }, ...index.sweep.settings.map(line(control))),
        ),
      ),
    ),
    el("p", { class: "quiet" }, `Points of ${subject.adds.flat()[0].metrics[0].label}, in per cent.`),
  );
}

function sweepJobs(subject) {
  const { keys, jobs } = index.sweep;
  const rows = LEADING.flatMap((name) => subject.metrics.filter((row) => row.name === name));
  const controls = [...new Map(subject.adds.flat().map((entry) => [entry.control, entry.label]))];
  const score = (job, row) => {
    const cell = job.run === null ? null : row.cells[columnOf(subject, job.run)];
    return el(
      "td",
      { class: "number", "data-label": nameOf(row) },
      cell ? [valueOf(row, cell.value), row.share ? " %" : ""] : "–",
      cell ? el("span", { class: "range" }, cell.low === null ? cell.why : rangeOf(row, cell)) : null,
    );
  };
  const adds = (job, [control, label]) => {
    const entry = (subject.adds[columnOf(subject, job.run)] || []).find((each) => each.control === control);
    const change = entry?.metrics[0].change;
    return el(
      "td",
      { class: `number ${change ? rising(change) : ""}`, "data-label": `adds to ${label}` },
      change ? points(change.delta) : "–",
      change ? el("span", { class: "range" }, addedRange(change)) : null,
    );
  };
  const line = (job) =>
    el(
      "tr",
      {},
      el(
        "th",
        { scope: "row" },
        job.run === null ? null : [swatch(tint(settingOf(job.run))), ` ${index.runs[job.run].letter}`],
        job.status === "done" ? null : el("span", { class: "worse" }, job.status),
        job.reason ? el("span", { class: "range" }, job.reason) : null,
      ),
      ...job.values.map((value, place) => el("td", { class: "number", "data-label": keys[place] }, value)),
      ...rows.map((row) => score(job, row)),
      ...controls.map((control) => adds(job, control)),
      el("td", { class: "number quiet", "data-label": "time" }, job.seconds === null ? "–" : duration(job.seconds)),
    );
  const heads = [...keys, ...rows.map(nameOf), ...controls.map(([, label]) => `adds to ${label}`), "time"];
  return el(
    "section",
    { id: "jobs" },
    el("h2", {}, "Jobs"),
    el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "scores" },
        headOf(["job"], heads),
        el("tbody", {}, ...jobs.map(line)),
      ),
    ),
    el(
      "p",
      { class: "quiet" },
      "Best first, as in sweep.md. Scores are of the last answers of each job, with 95 % intervals, which resample what questions share (their video); totals of different rewards do not compare.",
    ),
  );
}

function sweepSettings(subject) {
  const { settings } = index.sweep;
  const body = el("tbody");
  let section = null;
  for (const row of subject.metrics) {
    if (row.section !== section) {
      section = row.section;
      const head = el("th", { colspan: 1 + settings.length, scope: "rowgroup" }, section);
      body.append(el("tr", { class: "section" }, head));
    }
    const cells = settings.map((setting) => {
      const found = setting.runs.map((run) => row.cells[columnOf(subject, run)]).filter(Boolean);
      const { mean, low, high, seeds } = overSeeds(found, (cell) => cell.value);
      return el(
        "td",
        { class: "number", "data-label": setting.label },
        mean === null ? "–" : valueOf(row, mean),
        seeds > 1 ? el("span", { class: "range" }, rangeOf(row, { low, high })) : null,
      );
    });
    body.append(el("tr", {}, el("th", { scope: "row" }, row.label), ...cells));
  }
  const heads = settings.map((setting, place) => [swatch(tint(place)), ` ${setting.label}`]);
  return el(
    "section",
    { id: "settings" },
    el("h2", {}, "Scores by setting"),
    el(
      "div",
      { class: "scroll" },
      el("table", { class: "scores" }, headOf([""], heads), body),
    ),
    el("p", { class: "quiet" }, "Means over seeds, and under them the lowest and the highest. Shares in per cent."),
  );
}

// A setting's curve: the mean over its seeds, at the steps that all of them have, and each of them thin.
function overRuns(curves) {
  if (curves.length === 1) return { points: curves[0].points, ends: curves[0].ends || [] };
  const [first, ...others] = curves.map((one) => new Map(one.points));
  const steps = [...first.keys()].filter((step) => others.every((other) => other.has(step)));
  const means = steps.map((step) => [step, counted([first, ...others].map((one) => one.get(step)))]);
  const each = curves.map((one) => one.points);
  return { points: means.length ? means : each.flat().sort((a, b) => a[0] - b[0]), each };
}
