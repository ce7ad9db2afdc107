// Says so where the page's modules do not start: one of them is missing, or the browser is too old for them. A classic
// script of old words, so that it runs there, too.
addEventListener("error", function (event) {
  if (event.target !== window && event.target.tagName !== "SCRIPT") return;
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", say);
  else say();
}, true);

function say() {
  var verdict = document.getElementById("verdict"), problem = document.getElementById("problem");
  if (verdict.getAttribute("data-state") !== "loading") return; // the page runs, and speaks for itself
  verdict.setAttribute("data-state", "ready");
  document.getElementById("decision").textContent = "Not able to listen";
  document.getElementById("detail").textContent = "Nothing was opened.";
  problem.hidden = false;
  problem.textContent = "A part of this page is missing, or this browser is too old for it; load it again, or open it in a current Chrome, Edge, Firefox or Safari.";
}
