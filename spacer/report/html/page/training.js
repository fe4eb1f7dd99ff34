// Curves of the history, and the same questions asked again and again while a run trained.

const GROUPS = {
  reward: "Reward",
  rollout: "Rollouts",
  map: "Maps",
  completion: "Completions",
  train: "Optimisation",
  objective: "Optimisation",
  eval: "Evaluation",
  speed: "Speed",
  data: "Speed",
};
const groupOf = (name) => GROUPS[name.split("/")[0]] || "Optimisation";
const ORDER = ["Reward", "Maps", "Completions", "Rollouts", "Optimisation", "Evaluation", "Speed"];

// The value of curves that never change, null where they do or are of a single step.
function constant(series) {
  const values = series.flatMap((one) => [one.points, ...(one.each || [])].flat().map((point) => point[1]));
  return series.some((one) => one.points.length > 1) && values.every((value) => value === values[0]) ? values[0] : null;
}

// What curves are drawn of: each run, in the colour of its last column beside the others, or each setting of a sweep.
function byRun(runs) {
  const last = (run) => {
    const columns = index.subjects.length ? index.subjects[0].columns : [];
    const place = columns.findLastIndex((column) => column.run === run.place);
    return colour(place < 0 ? run.place + 1 : place);
  };
  return runs.map((run) => ({ label: run.letter, told: run.name, colour: last(run), runs: [run] }));
}

function bySetting(runs) {
  return index.sweep.settings.map((setting, place) => ({
    label: setting.label,
    told: setting.runs.length > 1 ? count(setting.runs.length, "seed") : "",
    colour: tint(place),
    runs: runs.filter((run) => setting.runs.includes(run.place)),
  }));
}

function training() {
  const view = el("div", { class: "page" }, ...notes());
  const runs = index.runs.map((run, place) => ({ ...run, place })).filter((run) => run.curves.length);
  if (!runs.length) return fill(view, {}, [el("p", { class: "quiet" }, "These runs trained nothing.")]);
  const names = [...new Set(runs.flatMap((run) => run.curves.map((one) => one.name)))];
  const drawn = index.sweep ? bySetting(runs) : byRun(runs);
  if (drawn.length > 1)
    view.append(
      el(
        "ul",
        { class: "legend wide" },
        ...drawn.map((one) =>
          el("li", {}, swatch(one.colour), `${one.label} `, el("span", { class: "quiet" }, one.told)),
        ),
      ),
    );
  const still = [];
  for (const group of ORDER) {
    const inside = names.filter((name) => groupOf(name) === group);
    const panels = inside.flatMap((name) => {
      const series = drawn.flatMap((one) => {
        const curves = one.runs.flatMap((run) => run.curves.filter((each) => each.name === name));
        return curves.length
          ? [{ label: one.label, colour: one.colour, title: curves[0].label, ...overRuns(curves) }]
          : [];
      });
      const title =
        series[0].title === name ? name.split("/").slice(1).join(" ").replaceAll("_", " ") || name : series[0].title;
      const value = constant(series);
      if (value === null) return [curve(title, series)];
      still.push({ title, value, group, series });
      return [];
    });
    if (panels.length) view.append(el("section", {}, el("h2", {}, group), el("div", { class: "panels" }, ...panels)));
  }
  if (still.length)
    view.append(
      el(
        "details",
        { class: "still" },
        el(
          "summary",
          {},
          `Never changed: ${still.map((one) => `${one.title} (${one.group.toLowerCase()}) ${short(one.value)}`).join(", ")}`,
        ),
        el("div", { class: "panels" }, ...still.map((one) => curve(one.title, one.series))),
      ),
    );
  view.append(
    el(
      "p",
      { class: "quiet" },
      index.sweep
        ? "Over training steps, a line for each setting: its seeds thin, a moving mean of their mean thick. Bars are 95 % intervals."
        : "Over training steps: each step thin, a mean over about a tenth of the run thick. A resumed run is one line. Bars are 95 % intervals.",
    ),
  );
  return view;
}

const hasRollouts = () => index.rollouts;

function rollouts() {
  const view = el("div", { class: "page" });
  contents("rollouts").forEach((run, place) => {
    if (run.questions.length) view.append(through(run, place));
  });
  return view;
}

// A question of which completions were written down while the run trained.
function through(run, place) {
  const box = el("div", { class: "through" });
  const said = (question) => question.shown[0].question || question.shown[0].id;
  const show = (number) => {
    const question = run.questions[number],
      first = question.shown[0];
    const steps = [...new Set(question.shown.map((one) => one.step))];
    refill(
      box,
      question.strip ? strip(question.strip) : null,
      el("p", { class: "asks" }, first.question || ""),
      (first.options || []).length
        ? el("ul", { class: "options" }, ...first.options.map((option) => el("li", {}, option)))
        : null,
      el(
        "p",
        { class: "truth" },
        "True answer ",
        el("strong", {}, String(first.solution || "").replace(/<\/?answer>/g, "")),
      ),
      ...steps.map((step) =>
        el(
          "section",
          { class: "step" },
          el("h4", {}, `after ${count(step, "step")}`),
          el(
            "div",
            { class: "answers n2" },
            ...question.shown
              .filter((one) => one.step === step)
              .map((one) =>
                el(
                  "article",
                  { class: "answer" },
                  el(
                    "dl",
                    { class: "values" },
                    ...Object.entries(one.reward || {})
                      .filter(([, value]) => value !== null)
                      .map(([name, value]) =>
                        el(
                          "div",
                          {},
                          el("dt", {}, index.labels[`reward/${name}`] || index.labels[name.replace("_", "/")] || name),
                          el("dd", {}, short(Number(value))),
                        ),
                      ),
                    Number.isFinite(one.advantage)
                      ? el("div", {}, el("dt", {}, "advantage"), el("dd", {}, signed(one.advantage, 2)))
                      : null,
                  ),
                  question.true_map || one.map ? gridMap(question.true_map, one.map, 180) : null,
                  completion(one.completion, 0, one.tokens),
                ),
              ),
          ),
        ),
      ),
    );
  };
  const options = run.questions.map((question, number) => [
    number,
    `${question.shown[0].split === "heldout" ? "held out" : "training"} · ${said(question).slice(0, 90)}`,
  ]);
  show(0);
  return el(
    "section",
    {},
    el("h2", {}, "The same questions through training", index.runs.length > 1 ? ` ${index.runs[place].letter}` : ""),
    select("Question", options, 0, (value) => show(Number(value))),
    box,
  );
}
