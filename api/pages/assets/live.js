"use strict";
/* Keeps a page up to date: when the server says that something is new, the page is asked for again, and those parts
   of it that are marked with `data-live` are replaced. What a person has opened stays open. */
(() => {
  const address = document.body.dataset.live;
  const away = document.getElementById("away");
  let busy = false, again = false, timer = null, slow = 0;

  function isAway(what) { away.hidden = !what; }

  function replace(old, fresh) {
    if (!fresh || old.innerHTML === fresh.innerHTML) return;
    const open = new Map([...old.querySelectorAll("details[id]")].map(one => [one.id, one.open]));
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    old.replaceChildren(...document.importNode(fresh, true).childNodes);
    for (const [id, isOpen] of open) {
      const one = document.getElementById(id);
      if (one) one.open = isOpen;
    }
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    const begun = performance.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.status === 401 || answer.status === 404) { location.reload(); return; }
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live][id]")) replace(old, fresh.getElementById(old.id));
      document.dispatchEvent(new Event("fresh"));
      isAway(false);
    } catch { isAway(true); }
    slow = performance.now() - begun;
    // A page that takes long to make is asked for less often.
    setTimeout(() => { busy = false; if (again) { again = false; refresh(); } }, Math.max(500, 4 * slow));
  }

  function listen() {
    const source = new EventSource(address);
    source.onopen = () => { clearTimeout(timer); timer = null; isAway(false); };
    source.onmessage = refresh;
    source.onerror = () => {
      // A stream ends now and then; the server is away only if it does not take the next one.
      timer ??= setTimeout(() => isAway(true), 5000);
      if (source.readyState === EventSource.CLOSED) { source.close(); setTimeout(() => { refresh(); listen(); }, 5000); }
    };
    addEventListener("pagehide", () => source.close());
  }
  if (address) listen();
})();
