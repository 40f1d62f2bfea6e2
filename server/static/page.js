// What HTML can't do by itself: clocks that go on, words copied, the log's tail, and whether the stream is alive.
"use strict";

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

function ago(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 2 * 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

function tick() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time")) {
    const then = Date.parse(time.dateTime);
    const seconds = Math.max(0, (now - then) / 1000);
    const text = time.className === "since" ? span(seconds) : ago(seconds);
    if (time.textContent !== text) time.textContent = text;
    if (!time.title) time.title = new Date(then).toLocaleString();
  }
}

function wake(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = !navigator.clipboard;
  tick();
}

function say(look, text) {
  const pulse = document.getElementById("pulse");
  if (!pulse) return;
  pulse.className = `pulse ${look}`;
  pulse.textContent = text;
}

// The log. Each line has a number that only grows, so what a broken connection says twice is dropped.

const MOST = 5000;

function isNearEnd(pre) {
  return pre.scrollHeight - pre.scrollTop - pre.clientHeight < 40;
}

function append(pre, news) {
  if (pre.dataset.stage !== news.stage) {
    pre.replaceChildren();
    Object.assign(pre.dataset, { stage: news.stage, last: 0, attempt: 1 });
    document.getElementById("earlier")?.remove();
    const all = document.querySelector("a[data-raw]");
    all.href = `${all.dataset.raw}${encodeURIComponent(news.stage)}/logs?format=text`;
  }
  const added = document.createDocumentFragment();
  for (const [id, attempt, stream, text] of news.lines) {
    if (id <= Number(pre.dataset.last)) continue;
    if (attempt > Number(pre.dataset.attempt || 1)) added.append(line("try", `attempt ${attempt}`));
    pre.dataset.attempt = attempt;
    pre.dataset.last = id;
    added.append(line(stream, `${text}\n`));
  }
  const follows = document.getElementById("stick").checked;
  pre.append(added);
  for (let extra = pre.childElementCount - MOST; extra > 0; extra--) pre.firstElementChild.remove();
  if (follows) pre.scrollTop = pre.scrollHeight;
}

function line(look, text) {
  const element = document.createElement("span");
  element.className = `line ${look}`;
  element.textContent = text;
  return element;
}

function watchLog() {
  const pre = document.getElementById("lines");
  if (!pre) return;
  const stick = document.getElementById("stick");
  stick.parentElement.hidden = stick.parentElement.classList.contains("over");
  pre.scrollTop = pre.scrollHeight;
  pre.addEventListener("scroll", () => { stick.checked = isNearEnd(pre); });
  stick.addEventListener("change", () => { if (stick.checked) pre.scrollTop = pre.scrollHeight; });
  pre.addEventListener("htmx:sseBeforeMessage", (event) => {
    event.preventDefault();
    append(pre, JSON.parse(event.detail.data));
  });
}

// A browser keeps only a few connections to one server. A page that nobody looks at gives its own away.

const PATIENCE = 30_000;
let source = null;

htmx.createEventSource = (url) => (source = new EventSource(url));

function rest() {
  let timer = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) {
      timer = setTimeout(() => source?.close(), PATIENCE);
    } else if (source?.readyState === EventSource.CLOSED && !ended) {
      source.onerror(new Event("error"));
    }
  });
}

let ended = false;
document.body.addEventListener("htmx:sseOpen", () => say("on", "live"));
document.body.addEventListener("htmx:sseError", () => say("off", "not live: connecting"));
document.body.addEventListener("htmx:sseClose", (event) => {
  if (event.detail.type !== "message") return;
  ended = true;
  say("over", "ended");
});
document.body.addEventListener("htmx:afterSwap", (event) => wake(event.target));
document.body.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
});

wake(document);
watchLog();
rest();
setInterval(tick, 1000);
