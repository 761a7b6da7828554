"use strict";
// Improves pages that work without it: live figures, copying, selection, local times, the scheme.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const say = (text) => {
    const said = document.getElementById("said");
    if (said) said.textContent = text;
  };

  // Times in the browser's zone, with the time in UTC as the title.
  const zone = (root) => {
    for (const time of all("time[data-instant]", root)) {
      const at = new Date(time.dateTime);
      const pad = (value, width) => String(value).padStart(width, "0");
      const day = `${at.getFullYear()}-${pad(at.getMonth() + 1, 2)}-${pad(at.getDate(), 2)}`;
      const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map((one) => pad(one, 2)).join(":");
      time.textContent = `${day} ${clock}.${pad(at.getMilliseconds(), 3)}`;
    }
  };

  const copying = (root) => {
    for (const button of all("[data-copy]", root)) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        const code = button.parentElement.querySelector("code");
        try {
          await navigator.clipboard.writeText(code.textContent);
          say("Copied");
        } catch {
          getSelection().selectAllChildren(code);
          say("Selected; press the keys that copy");
        }
      });
    }
  };

  // The scheme: as the system has it, light, dark.
  const theme = document.querySelector("[data-theme-switch]");
  if (theme) {
    const names = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
    const now = () => document.documentElement.dataset.scheme || "";
    const label = () => { theme.textContent = names[now()]; };
    theme.hidden = false;
    label();
    theme.addEventListener("click", () => {
      const next = { "": "light", light: "dark", dark: "" }[now()];
      if (next) document.documentElement.dataset.scheme = next;
      else delete document.documentElement.dataset.scheme;
      try {
        if (next) localStorage.setItem("redstart-scheme", next);
        else localStorage.removeItem("redstart-scheme");
      } catch {
        // Storage is off: the choice lasts for this page.
      }
      label();
    });
  }

  // A box that selects all rows of its table.
  const selecting = (root) => {
    for (const box of all("[data-select-all]", root)) {
      const rows = all("input[type=checkbox][name=id]", box.closest("form"));
      box.hidden = false;
      box.addEventListener("change", () => { for (const row of rows) row.checked = box.checked; });
    }
  };

  // Live regions. An update waits while text of the region is selected, and keeps the focus.
  const same = (one) => (one.id ? `#${one.id}`
    : `${one.tagName}|${one.getAttribute("href") || (one.type === "checkbox" ? one.value : one.name) || one.textContent}`);
  const isSelected = (region) => {
    const chosen = getSelection();
    return !chosen.isCollapsed && region.contains(chosen.anchorNode);
  };
  // A click needs its element from the press to the release.
  let pressed = null;
  const waiting = [];
  addEventListener("pointerdown", (event) => { pressed = event.target; }, true);
  const release = () => setTimeout(() => {
    pressed = null;
    for (const show of waiting) show();
  });
  for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, release);
  const replace = (region, html) => {
    const focus = region.contains(document.activeElement) ? same(document.activeElement) : null;
    const checked = new Set(all("input:checked", region).map((one) => one.value));
    region.innerHTML = html;
    zone(region);
    copying(region);
    selecting(region);
    for (const one of all("input[name=id]", region)) one.checked = checked.has(one.value);
    if (!focus) return;
    const again = all("a, button, input, [tabindex]", region).find((one) => same(one) === focus);
    if (again) again.focus({ preventScroll: true });
  };
  const follow = (region) => {
    const stale = region.previousElementSibling;
    let source = null;
    let last = region.innerHTML;
    let next = last;
    // The server sends a region only when it changes: an update that waits may be the last one.
    const show = () => {
      if (next === last || isSelected(region) || region.contains(pressed)) return;
      last = next;
      replace(region, next);
    };
    document.addEventListener("selectionchange", show);
    waiting.push(show);
    const warn = (html) => {
      stale.innerHTML = html;
      zone(stale);
    };
    const stop = () => { if (source) source.close(); source = null; };
    const start = () => {
      if (source) return;
      source = new EventSource(`${region.dataset.events}?of=${encodeURIComponent(region.dataset.live)}`);
      source.addEventListener("region", (event) => {
        warn("");
        next = event.data;
        show();
      });
      source.addEventListener("stale", (event) => warn(event.data));
      source.addEventListener("error", () => {
        const why = source && source.readyState === EventSource.CLOSED
          ? "The console answers no live requests. Reload the page for new figures."
          : "No connection to the console. The figures are old; the page tries again.";
        warn(`<div class="note bad"><p>${why}</p></div>`);
      });
    };
    return { start, stop };
  };
  const regions = all("[data-live]").map(follow);

  // A search that the page has cut goes on until it ends, or until the visitor follows its link.
  for (const region of all("[data-search]")) {
    const source = new EventSource(region.dataset.search);
    const stop = () => source.close();
    let next = null;
    const show = () => {
      if (next === null || region.contains(pressed)) return;
      replace(region, next);
      next = null;
    };
    waiting.push(show);
    source.addEventListener("region", (event) => {
      next = event.data;
      show();
    });
    source.addEventListener("done", (event) => {
      stop();
      getSelection().removeAllRanges();
      next = event.data;
      show();
      say("The search has ended");
    });
    source.addEventListener("error", () => {
      stop();
      for (const bar of all("progress", region)) bar.remove();
      say("The search has stopped; its link continues it");
    });
    addEventListener("pagehide", stop);
  }

  const pause = document.querySelector("[data-pause]");
  let paused = false;
  const apply = () => {
    for (const one of regions) {
      if (paused || document.hidden) one.stop();
      else one.start();
    }
  };
  if (pause) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      pause.textContent = paused ? "Paused" : "Pause";
      apply();
    });
  }
  document.addEventListener("visibilitychange", apply);
  addEventListener("pagehide", () => { for (const one of regions) one.stop(); });
  addEventListener("pageshow", apply);

  zone(document);
  copying(document);
  selecting(document);
  apply();
})();
