// The frame: head, tabs, keys. The address names the question, so that it can be sent.

const TABS = {
  overview: ["Overview", overview],
  questions: ["Questions", questions],
  training: ["Training", training],
  rollouts: ["Rollouts", rollouts],
  settings: ["Settings", settings],
};

// tabs that only some reports have
const WANTED = {
  overview: () => index.subjects.length || sampled().length,
  questions: () => index.subjects.length,
  training: () => index.runs.some((run) => run.curves.length),
  rollouts: hasRollouts,
};

function settings() {
  const view = el("div", { class: "page" });
  if (index.differences.length) {
    view.append(
      el(
        "section",
        {},
        el("h2", {}, "What differs"),
        el(
          "div",
          { class: "scroll" },
          el(
            "table",
            { class: "differs" },
            el(
              "thead",
              {},
              el("tr", {}, el("th", {}, "setting"), ...index.runs.map((run) => el("th", {}, run.letter))),
            ),
            el(
              "tbody",
              {},
              ...index.differences.map((entry) =>
                el(
                  "tr",
                  {},
                  el("th", { scope: "row" }, entry.key),
                  ...entry.values.map((value) => el("td", {}, value)),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  }
  for (const run of index.runs) {
    const seconds = Object.entries(run.seconds)
      .map(([phase, value]) => `${phase} ${value.toFixed(0)} s`)
      .join(" · ");
    view.append(
      el(
        "section",
        {},
        el("h2", {}, index.runs.length > 1 ? `${run.letter} ` : "", run.name),
        el(
          "dl",
          { class: "facts" },
          ...[
            ["folder", run.folder],
            ["stage", run.stage],
            ["command", `python run.py ${run.command}`],
            ["time", seconds],
          ]
            .filter(([, value]) => value)
            .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("code", {}, value)))),
        ),
        run.config
          ? el("details", {}, el("summary", {}, "All settings"), el("pre", {}, run.config))
          : el("p", { class: "quiet" }, "Its settings were not recorded."),
      ),
    );
  }
  index.subjects.forEach((subject) =>
    subject.conditions.forEach((how, place) => {
      if (how.length)
        view.append(
          el(
            "details",
            {},
            el("summary", {}, `How ${subject.name} was asked: ${subject.columns[place].label}`),
            el(
              "table",
              { class: "differs" },
              el(
                "tbody",
                {},
                ...how.map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, value))),
              ),
            ),
          ),
        );
    }),
  );
  const root = el("input", {
    type: "text",
    id: "root",
    value: mediaRoot || "",
    "aria-label": "folder of the videos",
    on: {
      input: () => {
        mediaRoot = root.value;
      },
    },
  });
  if (mediaRoot !== null)
    view.append(
      el(
        "section",
        {},
        el("h2", {}, "Where the videos are"),
        root,
        el(
          "p",
          { class: "quiet" },
          "Videos that are not embedded in this page are played from this folder, if it is on this machine.",
        ),
      ),
    );
  return fill(view, {}, [el("p", { class: "quiet" }, `Made ${index.made} by Spacer ${index.version}.`)]);
}

function render() {
  tip.hidden = true;
  const names = index.sweep
    ? [`${index.sweep.name}: ${count(index.sweep.jobs.length, "job")}`]
    : index.runs.map((run) => (index.runs.length > 1 ? `${run.letter} ${run.name}` : run.name));
  const tabs = el(
    "nav",
    { role: "tablist" },
    ...Object.entries(TABS)
      .filter(([key]) => !WANTED[key] || WANTED[key]())
      .map(([key, [label]]) =>
        el(
          "button",
          {
            role: "tab",
            id: `tab-${key}`,
            "aria-selected": key === state.tab ? "true" : "false",
            on: {
              click: () => {
                state.tab = key;
                render();
              },
            },
          },
          label,
        ),
      ),
  );
  const subjects =
    index.subjects.length > 1
      ? select(
          "Questions of",
          index.subjects.map((subject, place) => [place, subject.name]),
          state.subject,
          (value) => {
            chooseSubject(Number(value));
            render();
          },
        )
      : null;
  const head = el(
    "header",
    { class: "top" },
    el(
      "div",
      { class: "name" },
      el("strong", {}, names.join(" · ")),
      el("span", { class: "quiet" }, index.subjects.length === 1 ? index.subjects[0].name : ""),
    ),
    tabs,
    subjects,
  );
  document.getElementById("app").replaceChildren(head, TABS[state.tab][1]());
  document.body.className = state.tab;
  document.title = `${names.join(", ")} – Spacer report`;
  remember();
}

function remember() {
  const place = state.tab === "questions" && state.question >= 0 ? `/${state.subject}/${state.question}` : "";
  history.replaceState(null, "", `#${state.tab}${place}`);
}

function recall() {
  const [tab, subject, question] = location.hash.slice(1).split("/");
  if (Object.hasOwn(TABS, tab)) state.tab = tab;
  if (index.subjects[Number(subject)]) chooseSubject(Number(subject));
  if (question !== undefined && Number(question) < (index.subjects[state.subject]?.id.length || 0))
    state.question = Number(question);
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || state.tab !== "questions") return;
  const typing = /^(INPUT|SELECT|TEXTAREA|VIDEO)$/.test(event.target.tagName);
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing) return;
  const by = { ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1 }[event.key];
  if (by) {
    event.preventDefault();
    step(by);
  }
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("search").focus();
  }
});
window.addEventListener("resize", () => requestAnimationFrame(drawList));

if (index.subjects.length) chooseSubject(0);
else if (!sampled().length) state.tab = "training";
recall();
document.body.append(tip);
render();
