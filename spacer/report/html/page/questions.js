// The browser of questions: filters, a list of which only what is in sight is in the document, and the question beside it.

const ROW = 58; // pixels
const OF_TWO = ["better", "worse", "both wrong", "both right"]; // filters that take two columns

function passes(show, place, x, y) {
  const found = verdict(state.subject, y, place);
  if (show === "all") return true;
  if (show === "wrong") return isWrong(found);
  if (show in MARKS) return found === show;
  const other = verdict(state.subject, x, place);
  if (found === "absent" || other === "absent") return false;
  const [right, otherRight] = [found === "right", other === "right"];
  return {
    better: right && !otherRight,
    worse: !right && otherRight,
    "both wrong": !right && !otherRight,
    "both right": right && otherRight,
  }[show];
}

function found() {
  const subject = index.subjects[state.subject],
    words = state.search.trim().toLowerCase();
  const places = [];
  subject.id.forEach((_, place) => {
    if (state.task !== "" && subject.task[place] !== Number(state.task)) return;
    if (state.cluster !== "" && subject.cluster[place] !== Number(state.cluster)) return;
    if (passes(state.show, place, state.x, state.y) && (!words || holds(subject, place, words))) places.push(place);
  });
  return places;
}

// Searches all that is shown of a question: id, video, question, options, true answer, the chosen columns' completions.
function holds(subject, place, words) {
  const has = (text) => Boolean(text) && text.toLowerCase().includes(words);
  if (has(subject.id[place]) || has(subject.clusters[subject.cluster[place]]) || has(subject.head[place])) return true;
  const text = textOf(state.subject, place);
  if (!text) return false;
  return (
    has(text.text) ||
    has(text.truth) ||
    text.options.some(has) ||
    [state.x, state.y].some((column) => has(text.answers[column]?.completion))
  );
}

function openQuestions(filters) {
  Object.assign(state, { task: "", cluster: "", show: "all", search: "", question: -1, tab: "questions" }, filters);
  render();
}

let listed = [],
  drawList = () => {};

function questions() {
  const subject = index.subjects[state.subject];
  if (!subject) return el("div", { class: "page" }, el("p", { class: "quiet" }, "These runs answered no questions."));
  if (state.x === state.y && OF_TWO.includes(state.show)) state.show = "all";
  listed = found();
  if (!listed.includes(state.question)) state.question = listed.length ? listed[0] : -1;
  const detail = el("main", { class: "detail", id: "detail" });
  const list = questionList(subject);
  const view = el("div", { class: "browser" }, el("aside", {}, filters(subject), summaryLine(subject), list), detail);
  requestAnimationFrame(() => {
    drawList();
    reveal();
  });
  showQuestion(detail);
  return view;
}

function filters(subject) {
  const change = (name) => (value) => {
    state[name] = name === "x" || name === "y" ? Number(value) : value;
    refresh();
  };
  const columns = subject.columns.map((column, place) => [place, column.label]);
  const y = subject.columns[state.y].label,
    x = subject.columns[state.x].label,
    two = state.x !== state.y;
  const show = [
    ["all", "all"],
    ["right", "right"],
    ["wrong", "not right"],
    ["unread", WORDS.unread],
    ["error", WORDS.error],
  ];
  if (two)
    show.push(
      ["better", `${y} right, ${x} not`],
      ["worse", `${x} right, ${y} not`],
      ["both wrong", "neither right"],
      ["both right", "both right"],
    );
  let timer = 0;
  const search = el("input", {
    type: "search",
    id: "search",
    placeholder: "Search questions and answers",
    value: state.search,
    "aria-label": "Search",
    on: {
      input: () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          state.search = search.value;
          refresh();
        }, 150);
      },
    },
  });
  const video =
    state.cluster === ""
      ? null
      : el(
          "button",
          { class: "chip", title: "show all videos", on: { click: () => change("cluster")("") } },
          `video ${subject.clusters[state.cluster]} ✕`,
        );
  return el(
    "div",
    { class: "filters" },
    search,
    subject.columns.length > 1
      ? el(
          "div",
          { class: "pair" },
          select("Compare", columns, state.x, change("x")),
          select("with", columns, state.y, change("y")),
        )
      : null,
    el(
      "div",
      { class: "pair" },
      select("Show", show, state.show, change("show")),
      select(
        "Task",
        [["", "all tasks"], ...subject.tasks.map((task, place) => [place, task.label])],
        state.task,
        change("task"),
      ),
    ),
    video,
  );
}

function summaryLine(subject) {
  const mean = (column) => counted(listed.map((place) => subject.answers[column].score[place] ?? NaN));
  const columns = [...new Set([state.x, state.y])];
  const means = columns
    .map((column) => mean(column))
    .map((value, place) =>
      value === null
        ? null
        : `${columns.length > 1 ? subject.columns[columns[place]].label + " " : ""}${percent(value)} %`,
    );
  return el(
    "p",
    { class: "count", id: "count" },
    `${listed.length.toLocaleString("en")} of ${count(subject.id.length, "question")}`,
    el("span", { class: "quiet" }, listed.length ? ` · ${means.filter(Boolean).join(", ")}` : ""),
  );
}

function questionList(subject) {
  const columns = [...new Set([state.x, state.y])];
  const inside = el("div", { class: "inside", style: { height: `${listed.length * ROW}px` } });
  const list = el(
    "div",
    {
      class: "list",
      id: "list",
      role: "listbox",
      tabindex: 0,
      "aria-label": "questions",
      on: { scroll: () => requestAnimationFrame(drawList) },
    },
    inside,
  );
  drawList = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(listed.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
    inside.replaceChildren(
      ...listed.slice(first, last).map((place, n) =>
        el(
          "button",
          {
            class: place === state.question ? "item chosen" : "item",
            role: "option",
            "aria-selected": place === state.question ? "true" : "false",
            tabindex: -1,
            style: { top: `${(first + n) * ROW}px` },
            on: { click: () => choose(place) },
          },
          el(
            "span",
            { class: "marks" },
            ...columns.map((column) =>
              mark(
                verdict(state.subject, column, place),
                subject.answers[column].score[place],
                subject.columns[column].label,
              ),
            ),
          ),
          el(
            "span",
            { class: "words" },
            el("span", { class: "head" }, subject.head[place] || "(no text)"),
            el("span", { class: "quiet" }, `${subject.tasks[subject.task[place]].label} · ${subject.id[place]}`),
          ),
        ),
      ),
    );
  };
  return list;
}

function reveal() {
  const list = document.getElementById("list"),
    at = listed.indexOf(state.question) * ROW;
  if (!list || at < 0) return;
  if (at < list.scrollTop) list.scrollTop = at;
  else if (at + ROW > list.scrollTop + list.clientHeight) list.scrollTop = at + ROW - list.clientHeight;
  drawList();
}

function choose(place) {
  state.question = place;
  reveal();
  showQuestion(document.getElementById("detail"));
  remember();
}

function step(by) {
  const at = listed.indexOf(state.question) + by;
  if (at >= 0 && at < listed.length) choose(listed[at]);
}

// After a filter: the list anew, what is typed stays where it is.
function refresh() {
  const typing = document.activeElement?.id === "search" ? document.activeElement.selectionStart : null;
  render();
  if (typing !== null) {
    const search = document.getElementById("search");
    search.focus();
    search.setSelectionRange(typing, typing);
  }
}
