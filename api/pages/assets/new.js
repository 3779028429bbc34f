"use strict";
/* Keeps the fields of a spec and its text the same: what a person changes in one of them is sent, and what the server
   makes of it is shown in the other. It stores nothing. */
(() => {
  const PAUSE = 400;
  const form = document.querySelector("form.spec"), text = document.getElementById("spec"), fields = document.getElementById("fields");
  const away = document.getElementById("away");
  let edits = 0, timer = null, busy = false;

  function later() { clearTimeout(timer); timer = setTimeout(send, PAUSE); }

  async function send() {
    if (busy) { later(); return; }
    busy = true;
    const at = edits, body = new URLSearchParams(new FormData(form));
    body.set("apply", "yes");
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (at === edits) show(fresh); // else what was typed meanwhile is sent next
      away.hidden = true;
    } catch { away.hidden = false; }
    busy = false;
  }

  function show(fresh) {
    const said = document.getElementById("said"), now = fresh.getElementById("said");
    if (said.innerHTML !== now.innerHTML) said.replaceChildren(...document.importNode(now, true).childNodes);
    for (const old of document.querySelectorAll("#issues, #checked")) old.remove(); // they were about an earlier text
    const written = fresh.getElementById("spec"), isWhole = fresh.querySelector("[data-field]") !== null;
    mark(text, written);
    document.getElementById("unreadable").hidden = isWhole;
    if (!isWhole) return;
    if (text.value !== written.value) {
      const { selectionStart, selectionEnd, scrollTop } = text;
      text.value = written.value;
      text.setSelectionRange(selectionStart, selectionEnd);
      text.scrollTop = scrollTop;
    }
    const ids = page => [...page.querySelectorAll("[data-field]")].map(one => one.id).sort().join(" ");
    if (ids(document) === ids(fresh)) follow(fresh); else renew(fresh);
  }

  function mark(old, now) {
    if (now.hasAttribute("aria-invalid")) old.setAttribute("aria-invalid", "true"); else old.removeAttribute("aria-invalid");
  }

  function follow(fresh) {
    for (const now of fresh.querySelectorAll("[data-field]")) {
      const old = document.getElementById(now.id);
      mark(old, now);
      if (now.type === "checkbox") { old.checked = now.checked; continue; }
      // What is being typed stays: the server may write it otherwise, such as 1.0e-05.
      if (old !== document.activeElement) {
        if (old.tagName === "SELECT" && ![...old.options].some(one => one.value === now.value)) old.append(new Option(now.value, now.value));
        old.value = now.value;
      }
    }
    for (const now of fresh.querySelectorAll("#fields [id$='-problem'], #fields [id$='-value']")) document.getElementById(now.id).textContent = now.textContent;
    for (const now of fresh.querySelectorAll("#fields datalist")) document.getElementById(now.id)?.replaceChildren(...document.importNode(now, true).childNodes);
  }

  function renew(fresh) {
    const focus = document.activeElement?.id, open = new Set([...fields.querySelectorAll("details[open]")].map(one => one.id));
    fields.replaceChildren(...document.importNode(fresh.getElementById("fields"), true).childNodes);
    for (const one of fields.querySelectorAll("details")) one.open = open.has(one.id);
    offerFilters();
    if (focus && document.activeElement?.id !== focus) document.getElementById(focus)?.focus({ preventScroll: true });
  }

  function offerFilters() {
    for (const one of fields.querySelectorAll("label.filter")) one.hidden = false;
  }

  form.addEventListener("input", event => {
    const changed = event.target;
    if (changed.dataset.filter !== undefined) {
      const wanted = changed.value.trim().toLowerCase();
      for (const label of changed.closest("details").querySelectorAll(".boxes label"))
        label.hidden = !label.textContent.toLowerCase().includes(wanted) && !label.firstElementChild.checked;
      return;
    }
    edits += 1;
    later();
  });
  // The filter is no part of the spec: the key Enter in it sends nothing.
  form.addEventListener("keydown", event => { if (event.key === "Enter" && event.target.dataset.filter !== undefined) event.preventDefault(); });
  offerFilters();
})();
