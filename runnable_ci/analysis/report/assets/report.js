"use strict";
(() => {
  const open = () => {
    const target = document.getElementById(location.hash.slice(1));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target && target.tagName === "DETAILS") { target.scrollIntoView(); target.querySelector("summary").focus(); }
  };
  addEventListener("hashchange", open);
  open();
  const find = document.getElementById("find"), state = document.getElementById("state"), count = document.getElementById("count");
  if (!find) return;
  const steps = [...document.querySelectorAll(".step")].map((node) => [node, node.querySelector("summary b").textContent.toLowerCase()]);
  const filter = () => {
    const word = find.value.trim().toLowerCase();
    let shown = 0;
    for (const [node, label] of steps) {
      node.hidden = !label.includes(word) || (state.value !== "" && node.dataset.state !== state.value);
      if (!node.hidden) shown += 1;
    }
    count.textContent = shown === steps.length ? "" : `${shown} of ${steps.length} steps`;
  };
  find.addEventListener("input", filter);
  state.addEventListener("change", filter);
})();
