"use strict";
(() => {
  const SHARP = 400; // pixels of a picture that may stand in for a video
  const videos = JSON.parse(document.getElementById("players").textContent);
  const stories = [...document.querySelectorAll(".story")];

  // Order of aggregation: every table is there, one is shown.
  for (const input of document.querySelectorAll('input[name="order"]')) {
    input.addEventListener("change", () => {
      for (const part of document.querySelectorAll(".of-order")) part.hidden = part.dataset.order !== input.value;
    });
  }

  // What scrolls sideways fades at its right edge until its end is seen.
  const hint = (box) => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
  const seen = new ResizeObserver((entries) => { for (const entry of entries) hint(entry.target); });
  for (const box of document.querySelectorAll(".scroll")) {
    seen.observe(box);
    box.addEventListener("scroll", () => hint(box), { passive: true });
  }

  // A story's players show one shot of all methods, in step with the first that has it.
  class Players {
    constructor(root) {
      this.root = root;
      this.of = videos[root.dataset.story] || {};
      this.figures = [...root.querySelectorAll(".players figure")];
      this.stems = [...new Set([...root.querySelectorAll("[data-shot]")].map((b) => b.dataset.shot))];
      this.shot = null;
      this.playing = false;
      for (const button of root.querySelectorAll("[data-shot]")) {
        button.addEventListener("click", () => { this.show(button.dataset.shot); this.play(true); });
      }
      for (const button of root.querySelectorAll("button[data-do]")) {
        button.addEventListener("click", () => {
          if (button.dataset.do === "play") this.play(!this.playing);
          else this.move(button.dataset.do === "next" ? 1 : -1);
        });
      }
      for (const figure of this.figures) {
        const video = figure.querySelector("video");
        video.addEventListener("timeupdate", () => this.tick(video));
        video.addEventListener("ended", () => this.done(video));
        video.addEventListener("click", () => this.play(!this.playing));
        video.addEventListener("error", () => this.none(figure, "the video is not where the report was made for"));
      }
    }
    start() {
      if (this.shot === null && this.stems.length) this.show(this.stems.find((s) => this.clips(s).some(Boolean)) || this.stems[0]);
    }
    clips(stem) { return this.figures.map((f) => (this.of[f.dataset.method] || {})[stem]); }
    active() { return this.figures.map((f) => f.querySelector("video")).filter((v) => v.clip); }
    none(figure, text) {
      const told = figure.querySelector(".none");
      told.hidden = false;
      told.textContent = text;
      const video = figure.querySelector("video");
      video.clip = null;
      video.removeAttribute("poster");
    }
    show(stem) {
      const again = this.playing;
      this.play(false);
      this.shot = stem;
      this.clips(stem).forEach((clip, i) => {
        const figure = this.figures[i], video = figure.querySelector("video"), told = figure.querySelector(".none");
        if (!clip) { video.removeAttribute("src"); video.load(); this.none(figure, "missing"); return; }
        told.hidden = true;
        video.clip = clip;
        video.over = false;
        const poster = this.root.querySelectorAll(".strip tbody tr")[i].querySelector(`[data-shot="${CSS.escape(stem)}"] img`);
        // A picture that is much smaller than the player, and than the video, would hide how sharp that is.
        if (poster && (poster.naturalWidth || SHARP) >= Math.min(SHARP, clip[3])) video.poster = poster.src; else { video.removeAttribute("poster"); video.preload = "metadata"; }
        if (video.getAttribute("src") !== clip[0]) video.src = clip[0]; else video.currentTime = clip[1];
        if (clip[1]) video.addEventListener("loadedmetadata", () => { if (video.clip === clip) video.currentTime = clip[1]; }, { once: true });
      });
      for (const button of this.root.querySelectorAll("[data-shot]")) button.setAttribute("aria-pressed", button.dataset.shot === stem);
      this.say();
      if (again) this.play(true);
    }
    say() {
      const now = this.root.querySelector(".now"), play = this.root.querySelector('[data-do="play"]');
      if (now) now.textContent = this.shot ? `shot ${this.shot}` : "";
      if (play) play.textContent = this.playing ? "Pause" : "Play all";
    }
    play(on) {
      if (on) this.start();
      const active = this.active();
      this.playing = on && active.length > 0;
      const all = active.every((v) => v.over);
      for (const video of active) {
        if (!on) { video.pause(); continue; }
        if (all) { video.over = false; video.currentTime = video.clip[1]; }
        if (!video.over) video.play().catch(() => {});
      }
      this.say();
    }
    tick(video) {
      if (!video.clip) return;
      if (video.clip[2] !== null && video.currentTime >= video.clip[2] - 0.02) { video.pause(); this.done(video); return; }
      const lead = this.active().find((v) => !v.over);
      if (!this.playing || !lead || lead === video) return;
      const wanted = video.clip[1] + (lead.currentTime - lead.clip[1]);
      if (!video.over && Math.abs(video.currentTime - wanted) > 0.18) video.currentTime = wanted;
    }
    done(video) {
      if (video.over) return;
      video.over = true;
      if (!this.active().every((v) => v.over)) return;
      const through = this.root.querySelector('[data-do="through"]');
      if (this.playing && through && through.checked && this.stems.indexOf(this.shot) < this.stems.length - 1) this.move(1);
      else { this.playing = false; this.say(); }
    }
    move(by) {
      const at = this.stems.indexOf(this.shot) + by;
      if (at >= 0 && at < this.stems.length) { const on = this.playing; this.show(this.stems[at]); if (on) this.play(true); }
    }
  }
  const players = new Map(stories.map((story) => [story, new Players(story)]));
  let current = stories.find((story) => story.open) || stories[0] || null;
  for (const story of stories) {
    const ready = () => { if (story.open) { current = story; players.get(story).start(); } else players.get(story).play(false); };
    story.addEventListener("toggle", ready);
    if (story.open) ready();
  }
  const choose = (story, smooth) => {
    if (current && current !== story) players.get(current).play(false);
    current = story;
    story.open = true;
    story.scrollIntoView({ behavior: smooth ? "smooth" : "auto", block: "start" });
  };

  // Deep links: #story-robinson opens the story, #story-robinson/01_02 its shot as well.
  const follow = () => {
    const [id, stem] = decodeURIComponent(location.hash.slice(1)).split("/");
    const target = id && document.getElementById(id);
    if (!target) return;
    if (players.has(target)) {
      choose(target, false);
      if (stem && players.get(target).stems.includes(stem)) players.get(target).show(stem);
    } else if (target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", follow);
  follow();

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !current) return;
    if (event.target.closest("input, textarea, select, summary, button, a") && event.key === " ") return;
    const at = stories.indexOf(current), player = players.get(current);
    if (event.key === "j" && at < stories.length - 1) { current.open = false; choose(stories[at + 1], false); }
    else if (event.key === "k" && at > 0) { current.open = false; choose(stories[at - 1], false); }
    else if (event.key === "ArrowRight" && !event.target.closest("input")) player.move(1);
    else if (event.key === "ArrowLeft" && !event.target.closest("input")) player.move(-1);
    else if (event.key === " ") player.play(!player.playing);
    else return;
    event.preventDefault();
  });

  // Paper shows everything.
  let closed = [];
  addEventListener("beforeprint", () => { closed = [...document.querySelectorAll("details:not([open])")]; for (const d of closed) d.open = true; });
  addEventListener("afterprint", () => { for (const d of closed) d.open = false; });
})();
