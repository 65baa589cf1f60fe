// Live updates. The page is complete without them: what the server renders is fetched anew when something has
// happened, and takes the place of what differs. No state is kept here, and no text is made into markup here.

const POLL_SECONDS = 10;
const HURRY_SECONDS = 2; // while something on the page is being made
const PATIENCE_MS = 10_000;
const LISTEN_AFTER_MS = 1000;
const RETRY_MS = 30_000;
const KINDS = [
  "opened", "resolved", "occurred", "lifted", "told", "linked", "amended", "silenced", "unsilenced", "acked",
  "unacked", "reminded", "resent",
];

const status = document.getElementById("live");
const stream = document.querySelector("script[data-stream]")?.dataset.stream;
let skew = offset(status?.dataset.now);
let streaming = false;
let answeredAt = Date.now();
let pending = 0;
let busy = false;
let source = null;
let listening = 0;

function offset(iso) {
  const server = Date.parse(iso ?? "");
  return Number.isNaN(server) ? 0 : server - Date.now();
}

// --- what the top right corner says -------------------------------------------------------------------------

function tell(look, text) {
  if (status && status.textContent !== text) {
    status.className = look;
    status.textContent = text;
  }
}

function clock(ms) {
  return new Date(ms).toISOString().slice(11, 19);
}

function tellState(failed) {
  if (failed) {
    document.documentElement.dataset.stale = "";
    tell("failing", `✕ no answer since ${clock(answeredAt + skew)} UTC: you see what was then`);
  } else {
    delete document.documentElement.dataset.stale;
    tell(streaming ? "ok" : "quiet", streaming ? "● live" : `○ asks every ${POLL_SECONDS} s`);
  }
}

// Whoever was typing goes on here: the form is sent with what the next session gives it.
function tellSignedOut(login) {
  if (!status || status.querySelector("a")) return;
  const link = document.createElement("a");
  link.href = login;
  link.target = "_blank";
  link.rel = "noopener";
  link.textContent = "sign in in a new tab";
  status.className = "failing";
  status.replaceChildren("✕ signed out: ", link, ", then go on here");
}

// Whether anything was typed or chosen that would be lost.
function touched() {
  return [...document.querySelectorAll("main input:not([type=hidden]), main textarea, main select")].some((each) => {
    if (each.matches("select")) {
      return each.selectedIndex !== Math.max(0, [...each.options].findIndex((one) => one.defaultSelected));
    }
    if (each.matches("[type=checkbox], [type=radio]")) return each.checked !== each.defaultChecked;
    return each.value !== each.defaultValue;
  });
}

// --- fetching and exchanging --------------------------------------------------------------------------------

async function refresh() {
  if (busy || document.hidden || !document.querySelector("[data-live]")) return;
  busy = true;
  try {
    const answer = await fetch(location.href, {
      headers: { "Probed-Fragment": "1" }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (answer.redirected) { // a session that ended leads to the login
      if (touched()) tellSignedOut(answer.url);
      else location.reload();
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
    answeredAt = Date.now();
    tellState(false);
  } catch {
    tellState(true);
  } finally {
    busy = false;
  }
}

function exchange(fresh) {
  skew = offset(fresh.getElementById("live")?.dataset.now) || skew;
  const csrf = fresh.querySelector("input[name=csrf]")?.value; // of this session, which may be another by now
  for (const each of csrf ? document.querySelectorAll("input[name=csrf]") : []) each.value = csrf;
  if (fresh.title) document.title = `${fresh.title} · ${document.title.split(" · ").pop()}`;
  for (const old of document.querySelectorAll("[data-live]")) {
    const next = old.id && fresh.getElementById(old.id);
    if (!next || plain(old) === plain(next) || old.querySelector("form :focus")) continue;
    const open = new Map([...old.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
    const focus = mark(document.activeElement, old);
    for (const each of next.querySelectorAll("details[id]")) {
      if (open.has(each.id)) each.open = open.get(each.id);
    }
    const scrolled = [...old.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    old.replaceChildren(...document.importNode(next, true).childNodes);
    old.classList.remove("changed");
    requestAnimationFrame(() => old.classList.add("changed"));
    [...old.querySelectorAll(".scroll")].forEach((each, index) => { each.scrollLeft = scrolled[index] ?? 0; });
    focus?.(old);
  }
  enrich();
}

// What a section says, without what only grows older.
function plain(section) {
  const copy = section.cloneNode(true);
  for (const each of copy.querySelectorAll("time[data-ago], button.copy")) each.textContent = "";
  for (const each of copy.querySelectorAll("button.copy")) each.remove();
  for (const each of copy.querySelectorAll("details[open]")) each.open = false;
  return copy.innerHTML;
}

// How to find the focused element again in the exchanged section.
function mark(element, section) {
  if (!element || element === document.body || !section.contains(element)) return null;
  const link = element.getAttribute("href");
  const id = element.id || element.closest("details[id]")?.id;
  const tag = element.tagName.toLowerCase();
  return (place) => {
    const found = link
      ? [...place.querySelectorAll("a")].find((each) => each.getAttribute("href") === link)
      : id && place.querySelector(`#${CSS.escape(id)}`);
    (tag === "summary" && found ? found.querySelector("summary") : found)?.focus({ preventScroll: true });
  };
}

function soon() {
  clearTimeout(pending);
  pending = setTimeout(refresh, 200);
}

// --- the stream ---------------------------------------------------------------------------------------------

// Streams are few, and so are the connections that a browser makes to one server: who only passes through a page opens
// none, and a tab that nobody looks at gives its own back.
function listenLater(after) {
  clearTimeout(listening);
  if (stream && !source && !document.hidden) listening = setTimeout(listen, after);
}

function listen() {
  source = new EventSource(stream);
  source.addEventListener("open", () => { streaming = true; tellState(false); });
  source.addEventListener("error", () => {
    streaming = false;
    if (source?.readyState === EventSource.CLOSED) { // refused: there are too many
      source = null;
      listenLater(RETRY_MS);
    }
  });
  for (const kind of KINDS) source.addEventListener(kind, soon);
}

function stopListening() {
  clearTimeout(listening);
  source?.close();
  source = null;
  streaming = false;
}

// --- ages, copies, zones ------------------------------------------------------------------------------------

function ago(seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  const whole = Math.round(seconds);
  const parts = [
    [Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"],
  ];
  return `${parts.filter(([number]) => number).map(([number, unit]) => `${number} ${unit}`).slice(0, 2).join(" ")} ago`;
}

function tick() {
  for (const each of document.querySelectorAll("time[data-ago]")) {
    const text = ago((Date.now() + skew - Date.parse(each.dateTime)) / 1000);
    if (each.textContent !== text) each.textContent = text;
  }
}

function enrich() {
  if (!navigator.clipboard) return;
  for (const pre of document.querySelectorAll(".snapshot pre, details pre")) {
    if (pre.nextElementSibling?.classList.contains("copy")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain copy";
    button.textContent = "copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(pre.textContent);
      button.textContent = "copied";
    });
    pre.after(button);
  }
}

const own = document.getElementById("zone-own");
if (own) {
  own.classList.remove("gone");
  own.addEventListener("click", () => {
    document.getElementById("zone-field").value = Intl.DateTimeFormat().resolvedOptions().timeZone;
  });
}

// --- begin --------------------------------------------------------------------------------------------------

if (document.querySelector("[data-live]")) {
  listenLater(LISTEN_AFTER_MS);
  setInterval(refresh, POLL_SECONDS * 1000);
  setInterval(() => { if (document.querySelector("[data-hurry]")) refresh(); }, HURRY_SECONDS * 1000);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stopListening();
    else { listenLater(0); refresh(); }
  });
  addEventListener("pagehide", stopListening);
  tellState(false);
}
setInterval(tick, 1000);
enrich();
