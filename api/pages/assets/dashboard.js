"use strict";
/* What optuna-dashboard offers and this service refuses is not shown: creating studies and writing notes is for our pages. */
(() => {
  const hide = () => {
    for (const button of document.querySelectorAll("button:not(.video-hpo-hidden)"))
      if (/^create$/i.test(button.textContent.trim()) || button.querySelector('[data-testid="EditIcon"]')) button.classList.add("video-hpo-hidden");
  };
  new MutationObserver(hide).observe(document.getElementById("dashboard"), { childList: true, subtree: true });
  hide();
})();
