/* Light or dark: what the system says, unless somebody chose here. Runs before the page is drawn. */
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try { return localStorage.getItem("memos.theme"); } catch { return null; }
  };
  const show = (chosen) => {
    root.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
  };
  show(kept());
  dark.addEventListener("change", () => show(kept()));
  addEventListener("memos:theme", () => {
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("memos.theme", next); } catch { /* it holds until the page is left */ }
    show(next);
  });
})();
