// The page "Watch": asks for the state of a run and changes what has changed.
(() => {
  const API = "/api/watch", POLL_MS = 3000, COLORS = 6;
  const make = (name, attributes = {}, ...children) => {
    const svg = ["svg", "path", "line", "circle"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const short = value => {
    if (value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 1e5)) return String(Number(value.toPrecision(4)));
    return value.toExponential(2);
  };

  class Chart {
    constructor(data) {
      this.readout = make("span", {class: "prefrm-chart-now"});
      this.legend = make("span", {class: "prefrm-chart-legend"});
      this.plot = make("svg", {viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img"});
      this.top = make("span"); this.bottom = make("span"); this.first = make("span"); this.last = make("span");
      this.element = make("figure", {class: "prefrm-chart"},
        make("figcaption", {}, make("b", {}, data.title), this.readout),
        make("div", {class: "prefrm-chart-area"}, make("div", {class: "prefrm-chart-y"}, this.top, this.bottom), this.plot),
        make("div", {class: "prefrm-chart-x"}, this.first, this.last), this.legend);
      this.plot.addEventListener("pointermove", event => this.point(event));
      this.plot.addEventListener("pointerleave", () => this.now());
      this.update(data);
    }
    update(data) {
      this.data = data;
      const names = Object.keys(data.series), all = names.flatMap(name => data.series[name]);
      const [x0, x1] = [Math.min(...all.map(p => p[0])), Math.max(...all.map(p => p[0]))];
      let [y0, y1] = [Math.min(...all.map(p => p[1])), Math.max(...all.map(p => p[1]))];
      this.top.textContent = short(y1); this.bottom.textContent = short(y0);
      this.first.textContent = `step ${short(x0)}`; this.last.textContent = x1 > x0 ? short(x1) : "";
      if (y1 - y0 < 1e-12) { y0 -= 1; y1 += 1; }
      this.at = ([x, y]) => [x1 > x0 ? 100 * (x - x0) / (x1 - x0) : 50, 96 - 92 * (y - y0) / (y1 - y0)];
      this.x = x => x1 > x0 ? 100 * (x - x0) / (x1 - x0) : 50;
      const lines = names.map((name, n) => {
        const points = data.series[name].map(this.at);
        const d = points.length > 1 ? "M" + points.map(p => p.map(v => v.toFixed(2)).join(" ")).join("L")
          : `M${points[0][0] - 1} ${points[0][1]}L${points[0][0] + 1} ${points[0][1]}`;
        return make("path", {d, class: `prefrm-line-${n % COLORS}`});
      });
      this.cursor = make("line", {x1: 0, x2: 0, y1: 0, y2: 100, class: "prefrm-cursor"});
      this.plot.replaceChildren(this.cursor, ...lines);
      this.plot.setAttribute("aria-label", names.map(name => {
        const points = data.series[name];
        return `${name}: ${short(points[0][1])} at step ${points[0][0]}, ${short(points.at(-1)[1])} at step ${short(points.at(-1)[0])}`;
      }).join("; "));
      this.values = names.map(() => make("b"));
      this.legend.replaceChildren(...(names.length > 1 ? names.map((name, n) =>
        make("span", {}, make("i", {class: `prefrm-swatch-${n % COLORS}`}), name, this.values[n])) : []));
      this.now();
    }
    show(step) {
      const values = Object.values(this.data.series).map(points => step === null ? points.at(-1)
        : points.reduce((best, p) => Math.abs(p[0] - step) < Math.abs(best[0] - step) ? p : best));
      const shown = values.map(p => short(p[1])), when = step === null ? "" : `step ${short(values[0][0])}`;
      this.values.forEach((place, n) => { place.textContent = shown[n]; });
      this.readout.textContent = shown.length > 1 ? when : [when, ...shown].filter(Boolean).join(": ");
      const x = step === null ? 0 : this.x(values[0][0]);
      this.cursor.setAttribute("x1", x); this.cursor.setAttribute("x2", x);
      this.cursor.setAttribute("visibility", step === null ? "hidden" : "visible");
    }
    now() { this.show(null); }
    point(event) {
      const box = this.plot.getBoundingClientRect(), all = Object.values(this.data.series)[0];
      const share = 100 * (event.clientX - box.left) / box.width;
      this.show(all.reduce((best, p) => Math.abs(this.x(p[0]) - share) < Math.abs(this.x(best[0]) - share) ? p : best)[0]);
    }
  }

  class Watch {
    constructor(root) {
      this.root = root;
      const part = name => root.querySelector(`[data-${name}]`);
      Object.assign(this, {select: part("run"), follow: part("follow"), status: part("status"), step: part("step"),
        prompt: part("prompt"), count: part("count"), groups: part("groups"), charts: part("charts"), more: part("more")});
      this.seen = new IntersectionObserver(found => found.forEach(one => one.isIntersecting && this.load(one.target)), {rootMargin: "400px"});
      this.select.addEventListener("change", () => this.open());
      this.step.addEventListener("change", () => this.filter());
      this.prompt.addEventListener("input", () => this.filter());
      this.follow.addEventListener("change", () => this.poll());
      this.begin();
    }
    async begin() {
      const runs = await (await fetch(`${API}/runs`)).json();
      this.select.replaceChildren(...runs.map((name, n) => make("option", {value: n}, name)));
      this.select.parentElement.hidden = runs.length < 2;
      const wanted = new URLSearchParams(location.search).get("run");
      if (runs.includes(wanted)) this.select.value = runs.indexOf(wanted);
      this.open();
      setInterval(() => { if (this.follow.checked && document.visibilityState === "visible" && this.root.isConnected) this.poll(); }, POLL_MS);
    }
    open() {
      this.run = Number(this.select.value); this.version = ""; this.cards = new Map(); this.drawn = new Map(); this.state = null;
      for (const place of [this.groups, this.charts, this.more.lastElementChild]) place.replaceChildren();
      this.poll();
    }
    async poll() {
      const run = this.run;
      if (this.busy === run) return;
      this.busy = run;
      try {
        const answer = await fetch(`${API}/${run}/state?version=${this.version}`);
        if (run !== this.run) return;
        if (answer.status === 200) {
          this.state = await answer.json(); this.version = answer.headers.get("x-version");
          this.draw();
        }
        this.tell();
      } catch (error) {
        this.say("the server does not answer");
      } finally {
        this.busy = null;
      }
    }
    say(text) { if (this.status.textContent !== text) this.status.textContent = text; }
    tell() {
      const {charts, groups, changed, mistake} = this.state;
      if (mistake) return this.say(mistake);
      if (!charts.length && !groups.length) return this.say("nothing is written yet");
      const last = Math.max(...charts.flatMap(c => Object.values(c.series).map(p => p.at(-1)[0])), ...groups.map(g => g.step ?? -Infinity));
      const ago = Date.now() / 1000 - changed;
      const when = ago < 60 ? "less than a minute" : ago < 5400 ? `${Math.round(ago / 60)} min` : `${Math.round(ago / 3600)} h`;
      this.say(`${Number.isFinite(last) ? `step ${short(last)}, ` : ""}last change ${when} ago`);
    }
    draw() {
      const {charts, groups} = this.state, hidden = this.more.lastElementChild;
      for (const data of charts) {
        const known = this.drawn.get(data.title);
        const chart = known ?? new Chart(data);
        if (known) known.update(data); else this.drawn.set(data.title, chart);
        const place = data.shown ? this.charts : hidden;
        if (chart.element.parentElement !== place) place.append(chart.element);
      }
      this.more.hidden = !hidden.childElementCount;
      const ids = new Set(groups.map(group => group.id));
      for (const [id, card] of this.cards) if (!ids.has(id)) { card.remove(); this.cards.delete(id); }
      let place = this.groups.firstElementChild;
      for (const group of groups) {
        let card = this.cards.get(group.id);
        if (!card) {
          card = make("article", {class: "prefrm-card prefrm-watch-group", "data-id": group.id, "data-step": group.step ?? "", "data-prompt": group.prompt.toLowerCase()},
            make("h3", {}, group.prompt || "no prompt"), make("p", {class: "prefrm-note"}, group.step === null ? "loading" : `step ${group.step}`));
          this.cards.set(group.id, card);
          this.seen.observe(card);
        }
        if (card === place) place = place.nextElementSibling; else this.groups.insertBefore(card, place);
      }
      const steps = [...new Set(groups.map(group => group.step).filter(step => step !== null))].sort((a, b) => b - a);
      const shown = ["", ...steps.map(String)];
      if ([...this.step.options].map(option => option.value).join() !== shown.join()) {
        const chosen = this.step.value;
        this.step.replaceChildren(...shown.map(step => make("option", {value: step}, step || "all")));
        this.step.value = shown.includes(chosen) ? chosen : "";
      }
      this.filter();
    }
    filter() {
      const step = this.step.value, words = this.prompt.value.trim().toLowerCase();
      let shown = 0;
      for (const card of this.cards.values()) {
        card.hidden = (step !== "" && card.dataset.step !== step) || !card.dataset.prompt.includes(words);
        shown += !card.hidden;
      }
      const all = this.cards.size;
      this.count.textContent = !all ? "No group is logged yet; see log_groups." : shown === all ? `${all} groups, the newest first` : `${shown} of ${all} groups`;
    }
    async load(card) {
      this.seen.unobserve(card);
      const answer = await fetch(`${API}/${this.run}/${encodeURIComponent(card.dataset.id)}`);
      card.innerHTML = await answer.text();
      // A candidate that is missing, or that nothing can decode, has no picture.
      for (const image of card.querySelectorAll("img")) image.addEventListener("error", () =>
        image.replaceWith(make("span", {class: "prefrm-tile prefrm-missing", title: "no picture"})));
    }
  }

  let root = null;
  const look = () => {
    const found = document.getElementById("prefrm-watch");
    if (found && found !== root) { root = found; new Watch(found); }
  };
  new MutationObserver(look).observe(document.documentElement, {childList: true, subtree: true});
})();
