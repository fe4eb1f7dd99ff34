// The contents: JSON in elements that are not run, parsed when something of them is looked at.

const parsed = new Map();

function contents(id) {
  if (!parsed.has(id)) parsed.set(id, JSON.parse(document.getElementById(id).textContent));
  return parsed.get(id);
}

const index = contents("index");
let mediaRoot = index.media_root;

// null where the text had no room in the page
const textOf = (subject, place) => contents(`text-${subject}-${Math.floor(place / index.chunk)}`)[place % index.chunk];

// not kept: a video is large
const mediumOf = (place) => (place < 0 ? null : JSON.parse(document.getElementById(`media-${place}`).textContent));

// the last is that of text, which is light on a dark ground
const colour = (place) =>
  place % index.colours.length === index.colours.length - 1
    ? "currentColor"
    : index.colours[place % index.colours.length];

// right, wrong, unread (an answer from which nothing could be read), error (not asked), or absent
function verdict(subject, column, place) {
  const { score, state } = index.subjects[subject].answers[column];
  if (score[place] === null) return "absent";
  return state[place] || (score[place] >= index.right ? "right" : "wrong");
}

const isWrong = (found) => found !== "right" && found !== "absent";
const MARKS = { right: "✓", wrong: "✕", unread: "?", error: "!", absent: "·" };
const WORDS = {
  right: "right",
  wrong: "wrong",
  unread: "no answer could be read",
  error: "could not be asked",
  absent: "not asked in this run",
};

function mark(found, score, label) {
  const words =
    WORDS[found] + (Number.isFinite(score) && found !== "absent" && found !== "error" ? `, score ${score}` : "");
  return el("span", { class: `mark ${found}`, title: label ? `${label}: ${words}` : words }, MARKS[found]);
}

const state = { tab: "overview", subject: 0, x: 0, y: 0, task: "", cluster: "", show: "all", search: "", question: -1 };

function chooseSubject(place) {
  const columns = index.subjects[place].columns.length;
  Object.assign(state, {
    subject: place,
    x: index.subjects[place].against[columns - 1] ?? 0,
    y: columns - 1,
    task: "",
    cluster: "",
    show: "all",
    search: "",
    question: -1,
  });
}
