// One question: what it is about, what is asked, and every chosen run's answer with its thinking and its map.

function showQuestion(target) {
  target.scrollTop = 0;
  if (state.question < 0) {
    refill(target, el("p", { class: "quiet empty" }, "No question is like this."));
    return;
  }
  const subject = index.subjects[state.subject],
    place = state.question,
    text = textOf(state.subject, place);
  const at = listed.indexOf(place);
  const task = subject.tasks[subject.task[place]],
    cluster = subject.clusters[subject.cluster[place]];
  const head = el(
    "header",
    { class: "bar" },
    el(
      "button",
      { class: "turn", title: "previous question (←)", disabled: at <= 0, on: { click: () => step(-1) } },
      "‹",
    ),
    el(
      "button",
      { class: "turn", title: "next question (→)", disabled: at >= listed.length - 1, on: { click: () => step(1) } },
      "›",
    ),
    el("span", { class: "where" }, `${at + 1} of ${listed.length.toLocaleString("en")}`),
    el("span", { class: "task" }, task.label),
    el(
      "button",
      {
        class: "chip",
        title: "all questions about this video",
        on: { click: () => openQuestions({ x: state.x, y: state.y, cluster: String(subject.cluster[place]) }) },
      },
      cluster,
    ),
    el("code", { class: "id" }, subject.id[place]),
  );
  if (!text) {
    refill(
      target,
      head,
      el("p", { class: "notes" }, "The texts of this question did not fit in the page (report.max_megabytes)."),
      el("p", { class: "asks" }, subject.head[place]),
    );
    return;
  }
  const shown = [...new Set([state.x, state.y])];
  refill(
    target,
    head,
    media(subject.media[place]),
    el("p", { class: "asks" }, text.text || "(the text of the question is not at hand)"),
    choices(subject, text, shown),
    el("div", { class: `answers n${shown.length}` }, ...shown.map((column) => answer(subject, column, place, text))),
    others(subject, place, shown),
  );
}

function media(place) {
  const box = el("div", { class: "media" });
  const medium = mediumOf(place);
  if (!medium) return box;
  if (medium.strip) box.append(strip(medium.strip));
  else if (medium.problem) box.append(el("p", { class: "notes" }, `No frames: ${medium.problem}`));
  const from = medium.video
    ? () => medium.video
    : medium.path && mediaRoot !== null
      ? () => fileAddress(medium.path)
      : null;
  if (from && (medium.video || /\.(mp4|m4v|webm|mov|mkv)$/i.test(medium.path))) {
    const play = el(
      "button",
      { class: "play", on: { click: () => playing(box, play, from()) } },
      medium.video ? "▶ Play the video" : "▶ Play the video from disk",
    );
    box.append(el("div", { class: "under" }, play, el("span", { class: "quiet path" }, medium.path || "")));
  }
  return box;
}

function playing(box, button, address) {
  const video = el("video", { controls: true, muted: true, loop: true, playsinline: true, src: address });
  video.muted = true;
  video.addEventListener("error", () =>
    video.replaceWith(
      el(
        "p",
        { class: "notes" },
        "The browser cannot play this file. If the videos have moved, enter their folder under Settings.",
      ),
    ),
  );
  button.disabled = true;
  box.prepend(video);
  video.play().catch(() => {}); // a browser that does not start it by itself shows the controls
}

// A path under the media root as an address of a file: always that, whatever the path says.
function fileAddress(path) {
  const whole = `${mediaRoot}/${path}`.toWellFormed().replace(/\\/g, "/");
  return `file:///${whole.split("/").filter(Boolean).map(encodeURIComponent).join("/")}`;
}

const letterOf = (option) => (/^\(?([A-Z])\b/.exec(option) || [])[1];

function choices(subject, text, shown) {
  const chosen = (letter) =>
    shown.filter((column) => letter && text.answers[column]?.read?.trim().toUpperCase().startsWith(letter));
  if (!text.options.length) return el("p", { class: "truth" }, "True answer ", el("strong", {}, text.truth));
  const right = text.options.some((option) => letterOf(option) === text.truth.trim().toUpperCase());
  return el(
    "div",
    {},
    el(
      "ul",
      { class: "options" },
      ...text.options.map((option) => {
        const letter = letterOf(option);
        return el(
          "li",
          { class: letter && letter === text.truth.trim().toUpperCase() ? "true" : "" },
          el("span", {}, option),
          ...chosen(letter).map((column) =>
            el(
              "span",
              { class: "chosenby" },
              el("span", { class: "swatch", style: { background: colour(column) } }),
              subject.columns[column].label,
            ),
          ),
        );
      }),
    ),
    right ? null : el("p", { class: "truth" }, "True answer ", el("strong", {}, text.truth)),
  );
}

function answer(subject, column, place, text) {
  const given = text.answers[column],
    found = verdict(state.subject, column, place),
    score = subject.answers[column].score[place];
  const box = el(
    "article",
    { class: "answer", style: { "border-top-color": colour(column) } },
    el(
      "h3",
      {},
      mark(found, score),
      el("span", {}, subject.columns[column].label),
      el("span", { class: `verdict ${found}` }, WORDS[found]),
      found === "absent" || found === "error" ? null : el("span", { class: "quiet" }, `score ${score}`),
    ),
  );
  if (!given) return box;
  if (given.error) return fill(box, {}, [el("p", { class: "notes" }, given.error)]);
  box.append(
    el(
      "p",
      { class: "read" },
      el("span", { class: "quiet" }, "Answer "),
      given.read === null ? el("em", {}, "none could be read") : el("strong", {}, given.read),
    ),
  );
  if (given.drawn_map || text.map) box.append(gridMap(text.map, given.drawn_map));
  box.append(completion(given.completion, given.cut, given.tokens));
  const values = Object.entries(given.values).filter(([name]) => name !== "completion/tokens");
  if (values.length)
    box.append(
      el(
        "dl",
        { class: "values" },
        ...values.map(([name, value]) =>
          el("div", {}, el("dt", {}, index.labels[name] || name), el("dd", {}, short(value))),
        ),
      ),
    );
  return box;
}

// The completion whole, its parts told apart: thinking, map, answer. Tags stay in sight.
function completion(text, cut, tokens) {
  if (text === null) return el("p", { class: "quiet" }, "The completion was not kept.");
  const box = el("div", { class: "completion" });
  let kind = "";
  for (const part of text.split(/(<\/?(?:think|map|answer)>)/)) {
    if (/^<\/?(?:think|map|answer)>$/.test(part)) {
      box.append(el("span", { class: "tag" }, part));
      kind = part[1] === "/" ? (kind === "map" ? "think" : "") : part.slice(1, -1);
    } else if (part) box.append(el("span", { class: kind }, part));
  }
  if (!text) box.append(el("em", { class: "quiet" }, "(empty)"));
  const said = [
    tokens === null || tokens === undefined ? "" : count(tokens, "token"),
    cut ? `${cut.toLocaleString("en")} more characters are not shown` : "",
  ].filter(Boolean);
  return el(
    "div",
    {},
    el("h4", {}, "Completion", el("span", { class: "quiet" }, said.length ? ` ${said.join(", ")}` : "")),
    box,
  );
}

function others(subject, place, shown) {
  const left = subject.columns.map((_, column) => column).filter((column) => !shown.includes(column));
  if (!left.length) return null;
  return el(
    "p",
    { class: "others" },
    "Also: ",
    ...left.map((column) =>
      el(
        "button",
        {
          class: "chip",
          title: "compare with this one",
          on: {
            click: () => {
              state.x = column;
              refresh();
            },
          },
        },
        mark(verdict(state.subject, column, place), subject.answers[column].score[place]),
        subject.columns[column].label,
      ),
    ),
  );
}
