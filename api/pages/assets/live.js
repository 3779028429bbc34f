"use strict";
/* Keeps a page up to date: when the server says that something is new, the page is asked for again, and those parts
   of it that are marked with `data-live` are replaced. What a person has opened stays open. */
(() => {
  const address = document.body.dataset.live;
  // The answer to a form stands at the form's own address, where nothing can be asked for.
  const page = document.body.dataset.page;
  const away = document.getElementById("away");
  const soonMilliseconds = 1000;
  let busy = false, again = false, timer = null, soon = null, slow = 0, source = null;

  function isAway(what) { away.hidden = !what; }

  function replace(old, fresh) {
    if (!fresh) return;
    const active = old.contains(document.activeElement) ? document.activeElement : null;
    // What a person has ticked and not sent yet, or is about to press, is not taken away.
    if (old.querySelector("input:checked") || (active && !active.id)) return;
    const open = new Map([...old.querySelectorAll("details[id]")].map(one => [one.id, one.open]));
    for (const one of fresh.querySelectorAll("details[id]")) one.open = open.get(one.id) ?? one.open;
    if (old.innerHTML === fresh.innerHTML) return;
    old.replaceChildren(...document.importNode(fresh, true).childNodes);
    if (active) document.getElementById(active.id)?.focus({ preventScroll: true });
  }

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    const begun = performance.now();
    try {
      const answer = await fetch(page ?? location.href, { headers: { Accept: "text/html" } });
      if (answer.status === 401 || answer.status === 404) { if (page) location.assign(page); else location.reload(); return; }
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live][id]")) replace(old, fresh.getElementById(old.id));
      document.dispatchEvent(new Event("fresh"));
      askForMore();
      isAway(false);
    } catch { isAway(true); }
    slow = performance.now() - begun;
    // A page that takes long to make is asked for less often.
    setTimeout(() => { busy = false; if (again) { again = false; refresh(); } }, Math.max(500, 4 * slow));
  }

  // What the page says to follow in a moment is no news of the study: no stream tells of it.
  function askForMore() {
    clearTimeout(soon);
    if (!document.hidden && document.querySelector("[data-soon]")) soon = setTimeout(refresh, soonMilliseconds);
  }

  function stop() {
    source?.close();
    source = null;
    clearTimeout(timer);
    timer = null;
  }

  function listen() {
    stop();
    const mine = source = new EventSource(address);
    mine.onopen = () => { clearTimeout(timer); timer = null; isAway(false); };
    mine.onmessage = refresh;
    mine.onerror = () => {
      // A stream ends now and then; the server is away only if it does not take the next one.
      timer ??= setTimeout(() => isAway(true), 5000);
      if (mine.readyState !== EventSource.CLOSED) return;
      setTimeout(() => { if (source === mine) { refresh(); listen(); } }, 5000);
    };
  }

  if (!address) return;
  // A browser has few connections to one server: pages that nobody looks at leave them to the others.
  addEventListener("pagehide", stop);
  addEventListener("pageshow", event => { if (event.persisted && !document.hidden) { refresh(); listen(); } });
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else { refresh(); listen(); } });
  if (!document.hidden) listen();
  askForMore();
})();
