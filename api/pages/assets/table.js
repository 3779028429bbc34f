"use strict";
/* Reads a file of this computer into the text field of a form. */
(() => {
  for (const input of document.querySelectorAll("input[data-into]")) {
    input.closest("[data-chooses]").hidden = false;
    input.addEventListener("change", async () => {
      const file = input.files[0];
      if (!file) return;
      document.getElementById(input.dataset.into).value = await file.text();
      document.getElementById("file").value = file.name;
    });
  }
})();
