// Shows one question at a time and sends each answer once: an answer that got no reply is kept in the browser
// and sent again, with its idempotency key, before anything else is shown.

const API = new URL(".", import.meta.url).pathname;
const KEYS = {ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", ArrowDown: "both_bad", s: "skip", S: "skip"};
const RETRY_MS = [500, 1000, 2000, 5000];
const POLL_MS = {loading: 1000, waiting: 5000};
const NAME = "prefrm-annotator", PENDING = "prefrm-answer";
const CHOSEN_MS = 120;
// Up to this width, pixels are shown as squares.
const TINY_PX = 128;

const LAYOUT = `
<header><strong>prefrm</strong><span data-count></span><span class="space"></span>
<label data-name hidden>Your name <input maxlength="100" autocomplete="nickname"></label></header>
<p role="alert" hidden></p>
<section class="message" aria-live="polite"><h1>Loading</h1><p></p></section>
<section data-question hidden>
  <h1></h1><p class="by" hidden></p><p class="context" hidden></p>
  <div class="pair">
    <div class="side"><div class="stage"></div><button data-verdict="left"><kbd>←</kbd><span class="wide">Left is better</span><span class="narrow">Upper is better</span></button></div>
    <div class="side"><div class="stage"></div><button data-verdict="right"><span class="wide">Right is better</span><span class="narrow">Lower is better</span><kbd>→</kbd></button></div>
  </div>
  <div class="others">
    <button data-verdict="tie"><kbd>↑</kbd> Tie</button>
    <button data-verdict="both_bad"><kbd>↓</kbd> Both bad</button>
    <button data-verdict="skip"><kbd>S</kbd> Skip</button>
  </div>
</section>`;

const MESSAGES = {
  loading: ["Loading", "The next pair is being prepared."],
  waiting: ["Nothing for you right now", "Others are answering the last pairs. This page looks again by itself."],
  done: ["All done", "There is no pair left for you. Thank you."],
};

const pause = ms => new Promise(done => setTimeout(done, ms));
const randomKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, "0")).join("");

function mount(root) {
  root.innerHTML = LAYOUT;
  root.classList.toggle("embedded", window !== window.parent);
  const find = selector => root.querySelector(selector);
  const alert = find("[role=alert]"), message = find(".message"), section = find("[data-question]");
  const name = find("[data-name] input"), stages = [...root.querySelectorAll(".stage")];
  const buttons = [...root.querySelectorAll("[data-verdict]")];
  let question = null, shownAt = null, timer = null;

  name.value = localStorage.getItem(NAME) ?? "me";
  name.addEventListener("change", () => {
    name.value = name.value.trim() || "me";
    localStorage.setItem(NAME, name.value);
    run(() => call("next"));
  });

  function warn(text) {
    alert.hidden = !text;
    alert.textContent = text;
  }

  // A reply, or a refusal as an error with its status; without either, the request is repeated.
  async function call(path, body) {
    for (let attempt = 0; ; attempt++) {
      let reply = null;
      try {
        reply = await fetch(API + path, {
          method: body ? "POST" : "GET",
          headers: {"content-type": "application/json", "x-annotator": encodeURIComponent(name.value)},
          body: body && JSON.stringify(body),
        });
      } catch { /* no connection */ }
      if (reply?.ok) {
        warn("");
        return reply.json();
      }
      if (reply && reply.status < 500) {
        const refused = await reply.json().catch(() => ({}));
        throw Object.assign(new Error(refused.detail ?? refused.error ?? reply.statusText), {status: reply.status});
      }
      warn("The server cannot be reached. Your answer is kept, and sent as soon as it can be.");
      await pause(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
    }
  }

  async function sendPending() {
    const slot = `${PENDING}:${name.value}`;
    const pending = JSON.parse(localStorage.getItem(slot) ?? "null");
    if (!pending) return null;
    try {
      const reply = await call("answers", pending);
      localStorage.removeItem(slot);
      return reply;
    } catch (error) {
      if (error.status !== 409 && error.status !== 422) throw error;
      // The question was answered elsewhere, such as in another tab.
      localStorage.removeItem(slot);
      return null;
    }
  }

  async function run(step) {
    clearTimeout(timer);
    lock();
    try {
      await show(await step());
    } catch (error) {
      if (error.status === 401) location.reload();
      else warn(error.message);
    }
  }

  function lock() {
    shownAt = null;
    for (const button of buttons) button.disabled = true;
  }

  async function show(reply) {
    find("[data-name]").hidden = !reply.by_name;
    find("[data-count]").textContent = reply.of_pairs ? `${reply.pairs.toLocaleString()} of ${reply.of_pairs.toLocaleString()} pairs done` : "";
    question = reply.question;
    section.hidden = !question;
    message.hidden = !!question;
    if (!question) {
      const [title, text] = MESSAGES[reply.state];
      message.querySelector("h1").textContent = title;
      message.querySelector("p").textContent = text;
      if (reply.state in POLL_MS) timer = setTimeout(() => run(() => call("next")), POLL_MS[reply.state]);
      return;
    }
    section.querySelector("h1").textContent = question.prompt;
    const by = find(".by"), context = find(".context"), pair = find(".pair");
    by.hidden = !question.criterion;
    by.innerHTML = "Compare them by <b></b>";
    by.querySelector("b").textContent = question.criterion;
    context.hidden = !question.context.length;
    pair.className = `pair hidden ${question.kind}`;
    for (const chosen of root.querySelectorAll(".chosen")) chosen.classList.remove("chosen");
    const shown = question;
    const parts = await Promise.all([
      load(question.left, question.kind, "The candidate on the left"),
      load(question.right, question.kind, "The candidate on the right"),
      ...question.context.map(digest => load(digest, "image", "Belongs to the prompt")),
    ]);
    if (shown !== question) return;
    stages.forEach((stage, n) => stage.replaceChildren(parts[n]));
    context.replaceChildren(...parts.slice(2));
    // Both are painted with the next frame: the response time begins.
    requestAnimationFrame(() => {
      pair.classList.remove("hidden");
      for (const button of buttons) button.disabled = false;
      shownAt = document.hidden ? NaN : performance.now();
    });
  }

  async function load(digest, kind, label) {
    const url = `${API}contents/${digest}`;
    if (kind === "text") {
      const element = document.createElement("pre");
      element.tabIndex = 0;
      element.setAttribute("role", "region");
      element.setAttribute("aria-label", label);
      element.textContent = await (await fetch(url)).text();
      return element;
    }
    const element = document.createElement(kind === "video" ? "video" : "img");
    if (kind === "video") {
      Object.assign(element, {muted: true, loop: true, autoplay: true, controls: true, playsInline: true, src: url});
      element.setAttribute("aria-label", label);
      await new Promise(done => { element.oncanplay = element.onerror = done; });
    } else {
      element.alt = label;
      element.src = url;
      element.onload = () => element.classList.toggle("tiny", element.naturalWidth <= TINY_PX);
      await element.decode().catch(() => warn("An image could not be shown; skip this pair, or load the page again."));
    }
    return element;
  }

  async function answer(verdict) {
    if (shownAt === null || !question) return;
    const seconds = (performance.now() - shownAt) / 1000;
    const body = {question: question.question, key: randomKey(), verdict, response_s: Number.isFinite(seconds) ? seconds : null};
    lock();
    localStorage.setItem(`${PENDING}:${name.value}`, JSON.stringify(body));
    const button = buttons.find(one => one.dataset.verdict === verdict);
    (button.closest(".side") ?? button).classList.add("chosen");
    await run(async () => {
      const [reply] = await Promise.all([sendPending(), pause(CHOSEN_MS)]);
      return reply ?? call("next");
    });
  }

  for (const button of buttons) button.addEventListener("click", () => answer(button.dataset.verdict));
  document.addEventListener("keydown", event => {
    if (!root.isConnected || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input, textarea, select, [contenteditable], video")) return;
    const verdict = KEYS[event.key];
    if (!verdict || section.hidden) return;
    event.preventDefault();
    answer(verdict);
  });
  // Nobody looks at a page in the background: such a time is not one of a decision.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && shownAt !== null) shownAt = NaN;
  });
  run(async () => (await sendPending()) ?? call("next"));
}

for (const root of document.querySelectorAll("[data-collect]")) mount(root);
