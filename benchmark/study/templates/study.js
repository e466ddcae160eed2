"use strict";
const PLAN = JSON.parse(document.getElementById("plan").textContent);
const SIDES = ["left", "right"];
const CHOICES = [["left", "A better", "←"], ["tie", "Same", "↓"], ["right", "B better", "→"]];
const WATCHED = 95; // percent of a film that counts as watched
const at = (id) => document.getElementById(id);
const films = SIDES.map(at);

let rater = 0; // from 1
let session = []; // [story, film on the left, film on the right] of each trial
let kept = null; // { started, answers: [answer or null] }: all that is stored
let index = 0;
let row = 0;
let trialBegan = 0;

// -- storage ------------------------------------------------------------------------------------

const storageName = () => `memento-study/${PLAN.study}/${rater}`;

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

function load() {
  const empty = { started: Date.now(), answers: session.map(() => null) };
  try {
    const text = localStorage.getItem(storageName());
    const value = text ? JSON.parse(text) : empty;
    return Array.isArray(value.answers) && value.answers.length === session.length ? value : empty;
  } catch (error) {
    notice("This browser keeps nothing between visits: do not close or reload the page before the end.");
    return empty;
  }
}

function store() {
  try {
    localStorage.setItem(storageName(), JSON.stringify(kept));
  } catch (error) {
    notice("This browser keeps nothing between visits: do not close or reload the page before the end.");
  }
}

addEventListener("storage", (event) => {
  if (rater && event.key === storageName()) notice("The study is open in another tab: close one of the two, then reload.");
});

// -- the file -----------------------------------------------------------------------------------

const TABLE = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});

function crc32(text) {
  let sum = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) sum = (sum >>> 8) ^ TABLE[(sum ^ byte) & 255];
  return ((sum ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0");
}

const fileName = () => `answers-${PLAN.study}-rater-${String(rater).padStart(3, "0")}.json`;

function file() {
  const answers = kept.answers.filter((answer) => answer && complete(answer));
  const value = {
    format: "memento-study-answers/1", study: PLAN.study, rater, trials: session.length,
    started: kept.started, saved: Date.now(), answers,
  };
  return JSON.stringify({ ...value, check: crc32(JSON.stringify([value.study, rater, answers])) }, null, 1);
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file()], { type: "application/json" }));
  link.download = fileName();
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// -- answers ------------------------------------------------------------------------------------

const complete = (answer) => PLAN.criteria.every((criterion) => answer[criterion.id]);

function answer() {
  if (!kept.answers[index]) {
    const [, left, right] = session[index];
    const empty = Object.fromEntries(PLAN.criteria.map((criterion) => [criterion.id, ""]));
    kept.answers[index] = { trial: index, left, right, ...empty, ms: 0, plays: 0, watchedLeft: 0, watchedRight: 0, changes: 0 };
  }
  return kept.answers[index];
}

function percent(video) {
  if (!Number.isFinite(video.duration) || !video.duration) return 0;
  let seconds = 0;
  for (let i = 0; i < video.played.length; i++) seconds += video.played.end(i) - video.played.start(i);
  return Math.min(100, Math.round((100 * seconds) / video.duration));
}

function look() {
  const now = answer();
  now.watchedLeft = Math.max(now.watchedLeft, percent(films[0]));
  now.watchedRight = Math.max(now.watchedRight, percent(films[1]));
  return now;
}

function locked() {
  const now = look();
  return PLAN.mustWatch && Math.min(now.watchedLeft, now.watchedRight) < WATCHED;
}

function choose(choice) {
  if (locked()) return say("Watch both films to their end first.");
  const now = answer();
  const name = PLAN.criteria[row].id;
  if (now[name] && now[name] !== choice) now.changes += 1;
  now[name] = choice;
  spend();
  store();
  if (row < PLAN.criteria.length - 1) row += 1;
  show();
}

function broken() {
  if (!confirm("Can a film really not be played? The comparison will not count.")) return;
  const now = answer();
  for (const criterion of PLAN.criteria) now[criterion.id] = "broken";
  spend();
  store();
  show();
}

function spend() {
  answer().ms += Date.now() - trialBegan;
  trialBegan = Date.now();
}

// -- pages --------------------------------------------------------------------------------------

function only(id) {
  for (const name of ["start", "trial", "end"]) at(name).hidden = name !== id;
}

const say = (text) => { at("state").textContent = text; };

function go(to) {
  if (trialBegan && kept.answers[index]) { look(); spend(); store(); }
  if (to >= session.length) return finish();
  index = Math.max(0, to);
  row = 0;
  trialBegan = Date.now();
  const [story, ...names] = session[index];
  films.forEach((video, side) => { video.src = `videos/${names[side]}.mp4`; video.load(); });
  at("films").className = "";
  script(PLAN.stories[story]);
  only("trial");
  scrollTo(0, 0);
  show();
}

function show() {
  const now = answer();
  at("place").textContent = `${index + 1} of ${session.length}`;
  at("bar").value = kept.answers.filter((one) => one && complete(one)).length / session.length;
  at("questions").replaceChildren(...PLAN.criteria.map((criterion, i) => question(criterion, i, now)));
  at("back").disabled = index === 0;
  at("next").disabled = !complete(now);
  say(complete(now) ? "" : locked() ? "Watch both films to their end first." : "");
}

function question(criterion, i, now) {
  const box = element("div", `question${i === row ? " now" : ""}`);
  const title = element("p");
  title.append(element("b", "", `${criterion.title}. `), criterion.question);
  const choices = element("div");
  choices.setAttribute("role", "group");
  choices.setAttribute("aria-label", criterion.title);
  for (const [value, text, key] of CHOICES) {
    const button = element("button", "", `${text} `);
    button.append(element("kbd", "", key));
    button.setAttribute("aria-pressed", String(now[criterion.id] === value));
    button.onclick = () => { row = i; choose(value); };
    choices.append(button);
  }
  box.append(title, choices);
  if (now[criterion.id] === "broken") box.append(element("p", "soft", "Marked as not playable."));
  return box;
}

function script(story) {
  const list = element("ol");
  let looks = "";
  for (const shot of story.shots) {
    const item = element("li");
    item.append(element("b", "soft", `${shot.stem.replace("_", ".")} `), shot.text, element("span", "where"));
    if (shot.looks && shot.looks !== looks) item.append(element("span", "looks", shot.looks));
    looks = shot.looks;
    list.append(item);
  }
  at("script").replaceChildren(...(story.overview ? [element("p", "soft", story.overview)] : []), list);
  at("script").scrollTop = 0;
}

function element(tag, name = "", text = "") {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

function finish() {
  const open = kept.answers.findIndex((one) => !one || !complete(one));
  if (open >= 0) return go(open);
  films.forEach((video) => video.pause());
  only("end");
  at("file").textContent = fileName();
  download();
}

// -- playing ------------------------------------------------------------------------------------

function toggle() {
  const idle = films.every((video) => video.paused || video.ended);
  if (!idle) return films.forEach((video) => video.pause());
  if (films.every((video) => video.ended || !video.currentTime)) answer().plays += 1;
  const open = films.filter((video) => !video.ended);
  for (const video of open.length ? open : films) video.play().catch(() => {});
}

function again() {
  answer().plays += 1;
  for (const video of films) { video.currentTime = 0; video.play().catch(() => {}); }
}

function large(side) {
  const name = "ab"[side];
  at("films").className = at("films").className === name ? "" : name;
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function progress() {
  const items = [...at("script").querySelectorAll("li")];
  const places = films.map((video, side) => {
    const starts = PLAN.starts[session[index][side + 1]];
    return starts.filter((start) => start <= 1000 * video.currentTime + 40).length - 1;
  });
  items.forEach((item, i) => {
    const here = places.flatMap((place, side) => (place === i ? ["AB"[side]] : []));
    item.classList.toggle("now", here.length > 0);
    item.querySelector(".where").textContent = here.join(" ");
  });
  const first = items[Math.min(...places)];
  if (first && films.some((video) => !video.paused)) {
    const box = at("script");
    const top = first.offsetTop - box.offsetTop;
    if (top < box.scrollTop || top + first.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - 40;
  }
  films.forEach((video) => {
    const length = Number.isFinite(video.duration) ? clock(video.duration) : "";
    video.parentElement.querySelector("span").textContent = `${clock(video.currentTime)} / ${length}`;
  });
}

for (const video of films) {
  video.addEventListener("timeupdate", progress);
  video.addEventListener("loadedmetadata", progress);
  video.addEventListener("ended", () => { store(); show(); });
  video.addEventListener("error", () => {
    if (video.getAttribute("src")) say(`Film ${video.id === "left" ? "A" : "B"} cannot be played: is the folder videos beside this page?`);
  });
  video.onclick = toggle;
}

// -- keys and buttons ---------------------------------------------------------------------------

const KEYS = {
  " ": toggle, r: again, 1: () => large(0), 2: () => large(1), x: broken,
  ArrowLeft: () => choose("left"), ArrowDown: () => choose("tie"), ArrowRight: () => choose("right"),
  ArrowUp: () => { row = Math.max(0, row - 1); show(); },
  Enter: () => next(), Backspace: () => go(index - 1), "?": help,
};

function next() {
  if (complete(answer())) go(index + 1);
  else say(locked() ? "Watch both films to their end first." : "Answer all three questions first.");
}

function help() {
  const shown = at("keys").hidden;
  at("keys").hidden = !shown;
  at("help").setAttribute("aria-expanded", String(shown));
}

addEventListener("keydown", (event) => {
  if (at("trial").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = KEYS[key];
  // A focused button keeps its own Enter and Space.
  if (!act || (event.target.tagName === "BUTTON" && (key === "Enter" || key === " "))) return;
  event.preventDefault();
  if (!event.repeat) act();
});

at("play").onclick = toggle;
at("again").onclick = again;
at("large-left").onclick = () => large(0);
at("large-right").onclick = () => large(1);
at("broken").onclick = broken;
at("back").onclick = () => go(index - 1);
at("next").onclick = next;
at("help").onclick = help;
at("save").onclick = download;
at("download").onclick = download;
at("look").onclick = () => go(session.length - 1);
for (const button of document.querySelectorAll("#trial button")) {
  button.addEventListener("click", () => button.blur());
}

// -- start --------------------------------------------------------------------------------------

function welcome() {
  only("start");
  const asked = new URLSearchParams(location.hash.slice(1)).get("rater");
  if (asked) at("rater").value = asked;
  at("rater").focus();
}

at("who").onsubmit = (event) => {
  event.preventDefault();
  const number = Number(at("rater").value.trim());
  if (!Number.isInteger(number) || number < 1 || number > PLAN.sessions.length) {
    at("told").textContent = `Type your number, from 1 to ${PLAN.sessions.length}.`;
    return;
  }
  rater = number;
  session = PLAN.sessions[number - 1];
  kept = load();
  const open = kept.answers.findIndex((one) => !one || !complete(one));
  if (open < 0) finish();
  else go(open);
};

welcome();
